//go:build race

package shard_test

// raceEnabled tells that allocations cannot be counted.
const raceEnabled = true

//go:build !race

package ratelimit_test

// raceEnabled tells that allocations cannot be counted.
const raceEnabled = false

//go:build race

package usher_test

// raceEnabled tells that allocations cannot be counted.
const raceEnabled = true

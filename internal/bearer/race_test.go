//go:build race

package bearer_test

// raceEnabled tells that allocations cannot be counted.
const raceEnabled = true

//go:build race

package envelope_test

// raceEnabled says that allocations cannot be counted.
const raceEnabled = true

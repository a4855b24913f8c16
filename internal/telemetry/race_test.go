//go:build race

package telemetry_test

// raceEnabled tells that allocations cannot be counted.
const raceEnabled = true

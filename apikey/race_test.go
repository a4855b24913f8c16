//go:build race

package apikey_test

// raceEnabled tells that allocations cannot be counted.
const raceEnabled = true

//go:build race

package clientip_test

// raceEnabled tells that allocations cannot be counted.
const raceEnabled = true

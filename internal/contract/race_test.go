//go:build race

package contract_test

// raceEnabled: the race detector makes allocations of its own.
const raceEnabled = true

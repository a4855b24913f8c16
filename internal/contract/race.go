//go:build race

package contract

// raceEnabled: the race detector makes allocations of its own.
const raceEnabled = true

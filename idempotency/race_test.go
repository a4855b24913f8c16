//go:build race

package idempotency_test

// raceEnabled says that allocations and times mean nothing.
const raceEnabled = true

//go:build race

// Package race tells tests whether the race detector is on, which makes
// allocations of its own and everything slower.
package race

// Enabled reports whether the race detector is on.
const Enabled = true

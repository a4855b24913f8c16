//go:build race

// Package race reports whether the race detector is on, which slows tests down and makes
// allocations of its own.
package race

// Enabled reports whether the race detector is on.
const Enabled = true

//go:build race

package jwtauth_test

// raceEnabled tells that allocations cannot be counted.
const raceEnabled = true

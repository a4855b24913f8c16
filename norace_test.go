//go:build !race

package usher_test

const raceEnabled = false

package jwtauth

// Remembered returns how many tokens v remembers.
func Remembered(v *Verifier) int { return v.cache.entries.Len() }

package jwtauth

// Remembered returns how many tokens v remembers.
func Remembered(v *Verifier) int { return v.cache.entries.Len() }

// LogLen returns how many entries the log of l has, those of followers included.
func LogLen(l *RevocationList) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Len()
}

package jwtauth

// VerifyText verifies the signature of any text.
func VerifyText(k *Key, text string, signature []byte) error { return k.verify(text, signature) }

// Remembered returns how many tokens v remembers.
func Remembered(v *Verifier) int { return v.cache.entries.Len() }

package jwtauth

// VerifyText verifies the signature of any text.
func VerifyText(k *Key, text string, signature []byte) error { return k.verify(text, signature) }

// Remembered returns how many tokens v remembers.
func Remembered(v *Verifier) int { return v.cache.entries.Len() }

// Members returns the members of a JSON object.
func Members(data []byte) (names, values []string, err error) {
	_, members, err := parseObject(nil, data)
	for _, m := range members {
		names, values = append(names, m.name), append(values, m.value)
	}
	return names, values, err
}

// CallsDirectly reports whether i calls its store and its revocations without a guard.
func CallsDirectly(i *Issuer) bool {
	_, store := i.store.(guardedStore)
	_, revoker := i.revocations.(guardedRevoker)
	return !store && !revoker
}

package jwtauth

import "strings"

// Remembered returns how many tokens v remembers.
func Remembered(v *Verifier) int { return v.cache.entries.Len() }

// Collide makes v find the entry of a token that it remembers where it looks for another
// text, as if both had one hash.
func Collide(v *Verifier, token, other string) {
	from, to := v.cache.shard(v.cache.hash(token)), v.cache.hash(other)
	from.Lock()
	e, _ := from.Get(v.cache.hash(token))
	from.Unlock()
	s := v.cache.shard(to)
	s.Lock()
	defer s.Unlock()
	s.Add(to, e)
}

// LogLen returns how many entries the log of l has, those of followers included.
func LogLen(l *RevocationList) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Len()
}

// ListOf returns the list that m keeps.
func ListOf(m *RevocationMirror) *RevocationList { return &m.list }

// Resolved returns how many results of ResolveIssuer v remembers, and how many unknown
// issuers.
func Resolved(v *Verifier) (issuers, unknown int) { return v.resolver.found.Len() }

// KnowsHeader reports whether v remembers the header of a token.
func KnowsHeader(v *Verifier, token string) bool {
	header, _, _ := strings.Cut(token, ".")
	_, ok := v.headers.Find(header)
	return ok
}

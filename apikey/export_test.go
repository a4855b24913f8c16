package apikey

import (
	"hash/maphash"
	"io"
	"net/http"
	"time"

	"github.com/usher-go/usher"
)

// SetRandom makes m take its randomness from r.
func (m *Manager) SetRandom(r io.Reader) { m.random = r }

// MaxLength is the length of the longest key.
const MaxLength = maxLength

// Kept returns how many keys, and how many hashes without a key, c holds.
func (c *Cache) Kept() (keys, unknown int) { return c.entries.Len() }

// Checksum returns the checksum of a body of any length.
func Checksum(body string) string {
	sum := checksum(body)
	return string(sum[:])
}

// RecordUse records a successful use of the key with the ID of p, whether or not there is
// such a key.
func (a *Authenticator) RecordUse(r *http.Request, p *usher.Principal) {
	key := used{id: p.ID}
	key.verify(time.Now())
	if use := a.onUse(&Key{ID: p.ID}, &key); use != nil {
		use(r, http.StatusOK)
	}
}

// Noted returns how many keys have a use that a has still to write.
func (a *Authenticator) Noted() int {
	a.lastUse.mu.Lock()
	defer a.lastUse.mu.Unlock()
	return len(a.lastUse.noted)
}

// FrontSlots is the number of places in front of the cache of an Authenticator.
const FrontSlots = frontSlots

// FindsInFront reports whether text is found in front of a cache in the place of another
// text that is remembered there.
func FindsInFront(text, remembered string) bool {
	f, e := newFront(), new(entry)
	e.kept.Store(true)
	f.remember(remembered, e, nil, new(view), time.Now())
	return f.findAt(maphash.String(f.seed, remembered), text) != nil
}

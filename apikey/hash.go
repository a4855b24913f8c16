package apikey

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"slices"
	"sync"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
)

// A Hash is all that is stored of the text of a key: the version of the pepper, 0 for
// none, followed by the SHA-256 or HMAC-SHA-256 of the whole text. Every node computes
// the same hash for the same key, so a unique index finds it.
type Hash [1 + sha256.Size]byte

// A Pepper is a key for HMAC-SHA-256 that a service keeps outside its store, so
// that a copy of the store alone is not enough to test guesses. Generated keys do not
// need one, as nobody guesses 128 bits; imported keys may.
//
// A Pepper with Version 0 and no key means plain SHA-256, for keys that were issued
// before there was a pepper.
type Pepper struct {
	// Version identifies the pepper. The highest is used for new keys. Never reuse the
	// version of another pepper.
	Version uint8
	// Key is at least 32 bytes of text.
	Key Secret
}

// A hasher computes the hashes of keys, one for each pepper, the newest first.
type hasher struct {
	peppers []pepper
}

type pepper struct {
	version byte
	macs    *sync.Pool // of *mac; nil for plain SHA-256
}

// A mac is pooled because making one costs more than using it.
type mac struct {
	hash.Hash
	in  [maxLength]byte
	sum [sha256.Size]byte
}

func newHasher(peppers []Pepper, faults config.Faults[usher.ConfigError]) *hasher {
	if len(peppers) == 0 {
		return &hasher{[]pepper{{}}}
	}
	h := new(hasher)
	for i, p := range peppers {
		key := []byte(p.Key.Reveal())
		faults := faults.In(fmt.Sprintf("Peppers[%d]", i))
		switch {
		case slices.ContainsFunc(peppers[:i], func(other Pepper) bool { return other.Version == p.Version }):
			faults.Add("Version", "must not be listed twice")
		case p.Version == 0 && len(key) == 0:
			h.peppers = append(h.peppers, pepper{})
		case p.Version == 0:
			faults.Add("Version", "must be at least 1 for a pepper with a key")
		case len(key) < sha256.Size:
			faults.Add("Key", "must be at least 32 bytes")
		default:
			h.peppers = append(h.peppers, pepper{p.Version, &sync.Pool{New: func() any {
				return &mac{Hash: hmac.New(sha256.New, key)}
			}}})
		}
	}
	slices.SortFunc(h.peppers, func(a, b pepper) int { return cmp.Compare(b.version, a.version) })
	return h
}

// newest returns the hash under which a key with this text is stored.
func (h *hasher) newest(text string) Hash { return h.peppers[0].hash(text) }

// hash returns the hash of text, which is at most maxLength long. It allocates
// nothing.
func (p *pepper) hash(text string) (h Hash) {
	h[0] = p.version
	if p.macs == nil {
		// Sum256([]byte(text)) would copy text to the heap.
		var buf [maxLength]byte
		n := copy(buf[:], text)
		sum := sha256.Sum256(buf[:n])
		copy(h[1:], sum[:])
		return h
	}
	m := p.macs.Get().(*mac)
	m.Reset()
	n := copy(m.in[:], text)
	m.Write(m.in[:n])
	copy(h[1:], m.Sum(m.sum[:0]))
	clear(m.in[:n])
	p.macs.Put(m)
	return h
}

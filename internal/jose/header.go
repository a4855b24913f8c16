package jose

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// A Header has the parameters of a token's header that are used.
type Header struct {
	Algorithm string // never empty
	Type      string // typ, "" if absent
	KeyID     string // kid, "" if absent
}

// Headers remembers headers by their exact encoded text: an issuer sends the same one with
// most of its tokens. It is safe for concurrent use.
type Headers struct {
	seed  maphash.Seed
	slots [64]atomic.Pointer[knownHeader]
}

type knownHeader struct {
	text   string
	header Header
}

// NewHeaders returns a Headers that remembers none.
func NewHeaders() *Headers { return &Headers{seed: maphash.MakeSeed()} }

func (h *Headers) slot(text string) *atomic.Pointer[knownHeader] {
	return &h.slots[maphash.String(h.seed, text)%uint64(len(h.slots))]
}

// Keep remembers the header of a token. Call it only if the signature is valid: otherwise
// anybody could push out the headers of others.
func (h *Headers) Keep(t *Token) {
	text, _, _ := strings.Cut(t.Signed, ".")
	const longest = 1 << 10 // some have certificates
	s := h.slot(text)
	if k := s.Load(); len(text) > longest || k != nil && k.text == text {
		return
	}
	// The text may be part of a larger block of memory.
	s.Store(&knownHeader{strings.Clone(text), t.Header})
}

// Find returns the header with this encoded text, if h remembers it.
func (h *Headers) Find(text string) (Header, bool) {
	if k := h.slot(text).Load(); k != nil && k.text == text {
		return k.header, true
	}
	return Header{}, false
}

// headerNames are the header parameters that change how a token is read.
var headerNames = Names{Alone: []string{"alg", "typ", "kid", "crit", "b64", "zip", "enc"}}

func parseHeader(text string) (h Header, err error) {
	data, err := Encoding.DecodeString(text)
	if err != nil {
		return Header{}, errSegments
	}
	var buf [8]Member
	_, members, err := ParseObject(buf[:0], data)
	if err != nil {
		return Header{}, err
	}
	if headerNames.Confused(members) {
		return Header{}, errVariant
	}
	for _, m := range members {
		var text string
		switch m.Name {
		case "alg", "typ", "kid":
			var ok bool
			if text, ok = Unquote(m.Value); !ok || text == "" {
				return Header{}, errHeader
			}
		case "crit", "b64", "zip", "enc":
			return Header{}, errExtension
		}
		switch m.Name {
		case "alg":
			h.Algorithm = text
		case "typ":
			h.Type = text
		case "kid":
			h.KeyID = text
		}
	}
	if h.Algorithm == "" {
		return Header{}, errHeader
	}
	return h, nil
}

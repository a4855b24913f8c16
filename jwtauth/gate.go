package jwtauth

import (
	"errors"
	"slices"
	"strings"
)

// A gated token has the form of one. Nobody has checked its signature yet.
type gated struct {
	algorithm Algorithm
	typ       string // "" if absent
	kid       string // "" if absent
	signed    string // what the signature is of
	signature []byte
	payload   string
	claims    []member
}

// Why a token is not let through the gate.
var (
	errSegments  = errors.New("not three segments of base64url")
	errHeader    = errors.New("a member of the header that is not as it must be")
	errExtension = errors.New("a header that asks for an extension")
	errVariant   = errors.New("a member whose name differs in case from one that matters")
)

// segmentEnds returns the places of the two dots of text, and whether it is
// three segments of base64url, none of them empty. It looks at each byte once
// and keeps nothing, however many dots there are.
func segmentEnds(text string) (first, second int, ok bool) {
	for i := range len(text) {
		switch c := text[i]; {
		case alphabet[c]:
		case c != '.' || second > 0:
			return 0, 0, false
		case first == 0:
			first = i
		default:
			second = i
		}
	}
	return first, second, first > 0 && second > first+1 && second < len(text)-1
}

// pass takes a token apart. It refuses what this package does not understand to
// the last bit: JSON serialisations and JWE, extensions (crit, b64, zip), other
// spellings of base64, and ambiguous JSON. Keys and addresses of keys in the
// header are not looked at (RFC 8725, section 3.10).
func pass(text string) (gated, error) {
	first, second, ok := segmentEnds(text)
	if !ok {
		return gated{}, errSegments
	}
	g := gated{signed: text[:second]}
	buf := make([]byte, 0, segments.DecodedLen(len(text)))
	raw := []byte(text)
	header, err := segments.AppendDecode(buf, raw[:first])
	if err != nil {
		return gated{}, errSegments
	}
	if err := g.readHeader(header); err != nil {
		return gated{}, err
	}
	rest := header[len(header):]
	payload, err := segments.AppendDecode(rest, raw[first+1:second])
	if err != nil {
		return gated{}, errSegments
	}
	g.signature, err = segments.AppendDecode(payload[len(payload):], raw[second+1:])
	if err != nil {
		return gated{}, errSegments
	}
	g.payload, g.claims, err = parseObject(make([]member, 0, 12), payload)
	if err != nil {
		return gated{}, err
	}
	if variant(g.claims, claimNames) {
		return gated{}, errVariant
	}
	return g, nil
}

// headerNames are the members of a header that change how a token is read.
var headerNames = []string{"alg", "typ", "kid", "crit", "b64", "zip", "enc"}

func (g *gated) readHeader(data []byte) error {
	var buf [8]member
	_, members, err := parseObject(buf[:0], data)
	if err != nil {
		return err
	}
	if variant(members, headerNames) {
		return errVariant
	}
	for _, m := range members {
		var text string
		switch m.name {
		case "alg", "typ", "kid":
			var ok bool
			if text, ok = unquote(m.value); !ok || text == "" {
				return errHeader
			}
		case "crit", "b64", "zip", "enc":
			return errExtension
		}
		switch m.name {
		case "alg":
			g.algorithm = Algorithm(text)
		case "typ":
			g.typ = text
		case "kid":
			g.kid = text
		}
	}
	if g.algorithm == "" {
		return errHeader
	}
	return nil
}

// variant reports whether a member has one of names, but for its case.
func variant(members []member, names []string) bool {
	for _, m := range members {
		if slices.Contains(names, m.name) {
			continue
		}
		for _, name := range names {
			if strings.EqualFold(m.name, name) {
				return true
			}
		}
	}
	return false
}

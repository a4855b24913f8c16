// Package jose reads the parts of JSON Web Tokens and Keys: base64url, JSON objects and
// the compact serialisation. It accepts one spelling of each.
package jose

import "errors"

// A Token is a parsed JSON Web Token. Its signature has not been verified.
type Token struct {
	Header
	Signed    string // the text that the signature covers
	Signature []byte
	Payload   string
	Claims    []Member // parts of Payload
}

// The reasons why Parse does not accept a text.
var (
	errSegments  = errors.New("not three segments of base64url")
	errHeader    = errors.New("a header parameter is missing or has the wrong type")
	errExtension = errors.New("the header requires an extension")
	errVariant   = errors.New("the name of a member differs from a known one only in case")
)

// Split returns the positions of the two dots in text, and whether text is three segments
// of base64url, none of them empty. It reads each byte once and allocates nothing,
// however many dots there are.
func Split(text string) (first, second int, ok bool) {
	for i := range len(text) {
		switch c := text[i]; {
		case inAlphabet[c]:
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

// Parse parses a token. Known are the headers that need not be parsed again, or nil.
//
// Parse refuses everything that could be read in two ways or that changes how a token is
// read: JSON serialisations and JWE, extensions (crit, b64, zip), other spellings of
// base64, and ambiguous JSON. It ignores keys and URLs of keys in the header (RFC 8725,
// section 3.10).
func Parse(text string, known *Headers) (t Token, err error) {
	first, second, ok := Split(text)
	if !ok {
		return Token{}, errSegments
	}
	t.Signed = text[:second]
	if known != nil {
		t.Header, ok = known.Find(text[:first])
	}
	if known == nil || !ok {
		if t.Header, err = parseHeader(text[:first]); err != nil {
			return Token{}, err
		}
	}
	var buf [1 << 10]byte // enough for most
	payload, err := Encoding.AppendDecode(buf[:0], []byte(text[first+1:second]))
	if err != nil {
		return Token{}, errSegments
	}
	if t.Signature, err = Encoding.DecodeString(text[second+1:]); err != nil {
		return Token{}, errSegments
	}
	if t.Payload, t.Claims, err = ParseObject(make([]Member, 0, 12), payload); err != nil {
		return Token{}, err
	}
	if ClaimNames.Confused(t.Claims) {
		return Token{}, errVariant
	}
	return t, nil
}

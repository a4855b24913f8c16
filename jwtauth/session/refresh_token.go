package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"time"

	"github.com/usher-go/usher/internal/jose"
)

// A refreshToken is opaque to its holder. Its first half is the same in all refresh
// tokens of a session and identifies the session. A client that has that half has had
// such a token, because neither an access token nor a copy of the store reveals it. The
// second half is new each time. Each half is 256 bits from a random source.
type refreshToken [2 * refreshHalf]byte

const (
	refreshHalf   = 32
	refreshLength = (8*2*refreshHalf + 5) / 6 // in base64url
)

func newRefreshToken() (t refreshToken) {
	_, _ = rand.Read(t[:]) // never fails
	return t
}

// next returns another token of the same session.
func (t refreshToken) next() refreshToken {
	_, _ = rand.Read(t[refreshHalf:])
	return t
}

func parseRefreshToken(text string) (t refreshToken, ok bool) {
	if len(text) != refreshLength {
		return t, false
	}
	b, ok := jose.Decode(text)
	return t, ok && copy(t[:], b) == len(t)
}

func (t refreshToken) text() string              { return jose.Encoding.EncodeToString(t[:]) }
func (t refreshToken) handle() [sha256.Size]byte { return sha256.Sum256(t[:refreshHalf]) }
func (t refreshToken) hash() [sha256.Size]byte   { return sha256.Sum256(t[:]) }

// A tokenResponse has the tokens of the response to a login or refresh.
type tokenResponse struct {
	Access         string `json:"a"`
	Refresh        string `json:"r"`
	AccessSeconds  int64  `json:"x"`
	RefreshSeconds int64  `json:"y"`
	// Narrowed are the scopes of the access token, or nil if it has those of the session.
	Narrowed []string `json:"s,omitempty"`
	// Further has what follows the TokenID in the IDs of further access tokens.
	Further []string `json:"f,omitempty"`
}

// scopes returns the scopes of the access token of a session.
func (a tokenResponse) scopes(s Session) []string {
	if a.Narrowed != nil {
		return a.Narrowed
	}
	return s.Scopes
}

func (a tokenResponse) tokens(s Session) Tokens {
	return Tokens{
		Session:         s,
		Scopes:          a.scopes(s),
		AccessLifetime:  time.Duration(a.AccessSeconds) * time.Second,
		RefreshLifetime: time.Duration(a.RefreshSeconds) * time.Second,
		access:          &a.Access,
		refresh:         &a.Refresh,
	}
}

// encrypt encrypts the response under the token that was exchanged for it. Any client
// with that token may have the response, and gets it within the grace. The store has only
// the hash of the token, from which the key cannot be derived.
func (a tokenResponse) encrypt(token refreshToken) ([]byte, error) {
	plain, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	aead, err := responseCipher(token)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, plain, nil), nil
}

func decryptResponse(encrypted []byte, token refreshToken) (a tokenResponse, err error) {
	aead, err := responseCipher(token)
	if err != nil {
		return a, err
	}
	plain, err := aead.Open(nil, nil, encrypted, nil)
	if err == nil {
		err = json.Unmarshal(plain, &a)
	}
	if err != nil {
		// The error may quote the response.
		return a, errUndecryptable
	}
	return a, nil
}

var errUndecryptable = errors.New("session: the response in the store cannot be decrypted")

func responseCipher(token refreshToken) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, token[:], nil, "usher session refresh response", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

package leaked

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// errForged means that a report is not signed by GitHub.
var errForged = errors.New("leaked: the report has no valid signature")

const (
	// lifetime is how long keys are used before they are fetched again, and pause is the
	// least time between two attempts, since anyone can name a key that does not exist.
	lifetime = time.Hour
	pause    = time.Minute
	// maxStale is how long keys are used while GitHub does not respond.
	maxStale = 24 * time.Hour
	timeout  = 10 * time.Second
	maxKeys  = 32
	maxSet   = 64 << 10 // bytes
)

// A keySet has the public keys with which GitHub signs reports, by their identifiers.
type keySet struct {
	url, token string
	client     *http.Client

	mu      sync.Mutex // one fetch at a time, for which all others wait
	keys    map[string]*ecdsa.PublicKey
	fetched time.Time // when keys were fetched
	asked   time.Time // when the last attempt began
	failed  error     // its error
}

func newKeySet(c Config) *keySet {
	return &keySet{
		url:    cmp.Or(c.KeysURL, "https://api.github.com/meta/public_keys/secret_scanning"),
		token:  c.Token.Reveal(),
		client: cmp.Or(c.Client, http.DefaultClient),
	}
}

// verify returns errForged unless GitHub has signed the body, and any other error if that
// cannot be found out.
func (s *keySet) verify(ctx context.Context, h http.Header, body []byte) error {
	ids, signatures := h["Github-Public-Key-Identifier"], h["Github-Public-Key-Signature"]
	if len(ids) != 1 || len(signatures) != 1 {
		return errForged
	}
	signature, err := base64.StdEncoding.DecodeString(signatures[0])
	if err != nil {
		return errForged
	}
	key, err := s.key(ctx, ids[0])
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(body); !ecdsa.VerifyASN1(key, sum[:], signature) {
		return errForged
	}
	return nil
}

// key returns the key with this identifier. It fetches the keys if they are too old, or if
// the key is not among them.
func (s *keySet) key(ctx context.Context, id string) (*ecdsa.PublicKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	key := s.keys[id]
	if (key == nil || now.Sub(s.fetched) >= lifetime) && (s.asked.IsZero() || now.Sub(s.asked) >= pause) {
		s.asked = now
		var keys map[string]*ecdsa.PublicKey
		// A client that leaves does not fail the fetch for the others.
		if keys, s.failed = s.fetch(context.WithoutCancel(ctx)); s.failed == nil {
			s.keys, s.fetched = keys, now
			key = keys[id]
		}
	}
	switch {
	case key != nil && now.Sub(s.fetched) < maxStale:
		return key, nil
	case s.failed != nil:
		return nil, s.failed
	default:
		return nil, errForged
	}
}

func (s *keySet) fetch(ctx context.Context) (map[string]*ecdsa.PublicKey, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	if s.token != "" {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("leaked: fetching the keys of GitHub: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxSet))
	if err != nil {
		return nil, fmt.Errorf("leaked: fetching the keys of GitHub: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("leaked: fetching the keys of GitHub: status %d", resp.StatusCode)
	}
	return parseKeys(body)
}

// parseKeys returns the keys in a response of GitHub that can verify reports.
func parseKeys(body []byte) (map[string]*ecdsa.PublicKey, error) {
	var set struct {
		Keys []struct {
			ID  string `json:"key_identifier"`
			PEM string `json:"key"`
		} `json:"public_keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, fmt.Errorf("leaked: the keys of GitHub: %w", err)
	}
	keys := make(map[string]*ecdsa.PublicKey)
	for _, k := range set.Keys[:min(len(set.Keys), maxKeys)] {
		block, _ := pem.Decode([]byte(k.PEM))
		if block == nil {
			continue
		}
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if key, ok := parsed.(*ecdsa.PublicKey); err == nil && ok && key.Curve == elliptic.P256() {
			keys[k.ID] = key
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("leaked: GitHub has published no key that can be used")
	}
	return keys, nil
}

package jwk

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/outbound"
)

// A fetcher fetches a set of keys. It does one thing at a time.
type fetcher struct {
	url       *url.URL   // nil until discovery has found it
	discovery *discovery // nil if the URL is configured
	client    *http.Client
	use       string
	maxBody   int64
	maxKeys   int
}

// newFetcher returns a fetcher, and adds the faults of c to f.
func newFetcher(f config.Faults[usher.ConfigError], c RemoteConfig) fetcher {
	out := fetcher{
		client:  outbound.SameHost(c.Client),
		use:     cmp.Or(c.Use, forSignatures),
		maxBody: cmp.Or(c.MaxBody, 1<<20),
		maxKeys: cmp.Or(c.MaxKeys, 100),
	}
	f.If(c.Use == "enc", "Use", "must not be for encryption")
	f.If(c.MaxBody < 0, "MaxBody", config.NotNegative)
	f.If(c.MaxKeys < 0, "MaxKeys", config.NotNegative)
	field, err := "URL", error(nil)
	switch {
	case c.URL == "" && c.Issuer == "":
		err = errors.New("is required, or Issuer is")
	case c.Issuer == "":
		out.url, err = outbound.ParseURL(c.URL, c.DangerouslyAllowHTTP)
	default:
		f.If(c.URL != "", "URL", "must be empty if Issuer is set")
		field = "Issuer"
		out.discovery, err = newDiscovery(c.Issuer, c.DangerouslyAllowHTTP)
	}
	if err != nil {
		f.Add(field, err.Error())
	}
	return out
}

// A fetchedSet is the result of a fetch.
type fetchedSet struct {
	keys    []*Key // at least one
	skipped error  // why other keys of the same use were skipped, or nil
}

// fetch fetches the set. A fetch that a token has caused looks for new keys where the last
// ones were; others ask the issuer where the keys are, if that is to be discovered.
func (f *fetcher) fetch(ctx context.Context, caused bool) (s fetchedSet, err error) {
	if f.discovery != nil && (f.url == nil || !caused) {
		u, err := f.discovery.find(ctx, f.client)
		if err != nil {
			return s, err
		}
		f.url = u
	}
	body, err := get(ctx, f.client, f.url.String(), "application/jwk-set+json, application/json", f.maxBody)
	if err != nil {
		return s, err
	}
	keys, err := keysOf(body)
	if err != nil {
		return s, err
	}
	if len(keys) > f.maxKeys {
		return s, fmt.Errorf("the set has %d keys", len(keys))
	}
	return parsePublishedSet(keys, f.use)
}

// keysOf returns the keys of a set. Names are case-sensitive, and of two members of one
// name the last one counts (RFC 7517, section 5). A map has both, and a struct neither.
func keysOf(body []byte) (keys []json.RawMessage, err error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || json.Unmarshal(members["keys"], &keys) != nil || keys == nil {
		return nil, errors.New("the response is not a key set")
	}
	return keys, nil
}

// get returns the body of the response to a GET.
func get(ctx context.Context, client *http.Client, url, accept string, limit int64) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", accept)
	// A cached response may be older than a rotation.
	r.Header.Set("Cache-Control", "no-cache")
	return outbound.Do(client, r, limit)
}

// parsePublishedSet returns the usable keys for this use, or an error if there is none.
func parsePublishedSet(raw []json.RawMessage, use string) (s fetchedSet, err error) {
	reasons := []error{errors.New("the set has no usable key")}
	var skipped []error
	for _, data := range raw {
		k, id, err := parsePublished(data, use)
		if err == nil {
			s.keys = append(s.keys, k)
			continue
		}
		reason := fmt.Errorf("jwk: the key %.100q of the set is skipped because it %w", id, err)
		reasons = append(reasons, reason)
		if !errors.Is(err, errOtherUse) {
			skipped = append(skipped, reason)
		}
	}
	if len(s.keys) == 0 {
		return s, errors.Join(reasons...)
	}
	// The order in which a set has its keys does not matter.
	slices.SortFunc(skipped, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	s.skipped = errors.Join(skipped...)
	return s, nil
}

// anyAlgorithm has one algorithm for each type of key. Those of elliptic curves suit only
// one; what a published RSA key is for without naming it is decided by [Key.As].
var anyAlgorithm = []Algorithm{RS256, ES256, ES384, ES512, EdDSA}

// parsePublished returns the key in data, and its ID.
func parsePublished(data []byte, use string) (k *Key, id string, err error) {
	p, err := parsePublishedJWK(data, use)
	if err != nil {
		return nil, p.id, err
	}
	candidates := anyAlgorithm
	if p.algorithm != "" {
		candidates = []Algorithm{p.algorithm}
	}
	err = errors.New("is for an unknown algorithm")
	for _, a := range candidates {
		s, ok := schemes[a]
		if !ok {
			continue
		}
		if err = s.check(p.material); err != nil {
			continue
		}
		k := s.key(p.id, a, p.material)
		k.issuer = p.issuer
		if p.algorithm == "" && s.family == rsaFamily {
			k.algorithm, k.method = "", nil
		}
		return k, p.id, nil
	}
	return nil, p.id, err
}

// sameKey reports whether two keys of fetched sets are equal.
func sameKey(a, b *Key) bool {
	return a == b || a.id == b.id && a.algorithm == b.algorithm && a.issuer == b.issuer && equalKeys(*a.verifying, *b.verifying)
}

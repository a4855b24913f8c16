// Package byhand holds the parts that services write themselves. usher is measured
// beside them where there is no rival to import.
//
// Each part is as small as it can be while it does its work. Its comment lists what
// it leaves out. None is meant for use.
package byhand

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"sync"
)

// Keys looks API keys up by their SHA-256 in a map. It leaves out expiry,
// revocation, environments, scopes, checksums, the time of last use, a cache in
// front of a store, and metrics.
type Keys struct {
	mu  sync.RWMutex
	ids map[string]string // hex of the hash to the ID
}

// NewKeys returns Keys with one key: text, with this ID.
func NewKeys(text, id string) *Keys {
	sum := sha256.Sum256([]byte(text))
	return &Keys{ids: map[string]string{hex.EncodeToString(sum[:]): id}}
}

// Add adds a key. It must not be called while requests are served.
func (k *Keys) Add(text, id string) {
	sum := sha256.Sum256([]byte(text))
	k.ids[hex.EncodeToString(sum[:])] = id
}

type callerKey struct{}

// Caller returns the ID that [Keys] has put into ctx.
func Caller(ctx context.Context) string {
	id, _ := ctx.Value(callerKey{}).(string)
	return id
}

// Wrap lets requests with a known key in X-API-Key pass.
func (k *Keys) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.Sum256([]byte(r.Header.Get("X-API-Key")))
		k.mu.RLock()
		id, ok := k.ids[hex.EncodeToString(sum[:])]
		k.mu.RUnlock()
		if !ok {
			refuse(w)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, id)))
	})
}

func refuse(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("WWW-Authenticate", "ApiKey")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write([]byte(`{"error":"invalid api key"}`))
}

// TightKeys is [Keys] with fewer allocations: the hash itself is the key of the map
// and the caller is not copied into the context. It leaves out what Keys leaves out.
type TightKeys struct {
	mu  sync.RWMutex
	ids map[[sha256.Size]byte]*string
}

// NewTightKeys returns TightKeys with one key: text, with this ID.
func NewTightKeys(text, id string) *TightKeys {
	return &TightKeys{ids: map[[sha256.Size]byte]*string{sha256.Sum256([]byte(text)): &id}}
}

// Add adds a key. It must not be called while requests are served.
func (k *TightKeys) Add(text, id string) { k.ids[sha256.Sum256([]byte(text))] = &id }

// Wrap lets requests with a known key in X-Api-Key pass.
func (k *TightKeys) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var id *string
		if values := r.Header["X-Api-Key"]; len(values) == 1 {
			sum := sha256.Sum256([]byte(values[0]))
			k.mu.RLock()
			id = k.ids[sum]
			k.mu.RUnlock()
		}
		if id == nil {
			refuse(w)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, id)))
	})
}

// TightCaller returns the ID that [TightKeys] has put into ctx.
func TightCaller(ctx context.Context) string {
	if id, ok := ctx.Value(callerKey{}).(*string); ok {
		return *id
	}
	return ""
}

// Package apikey_test moves keys from the hashes that other services store to those of
// apikey.
package apikey_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// A scheme is one in which a service stores its keys.
type scheme struct {
	hash   func(text string) string
	verify func(stored string, text apikey.Secret) (bool, error)
}

var schemes = map[string]scheme{
	"bcrypt":                {bcryptHash, bcryptVerify},
	"argon2id":              {argon2Hash, argon2Verify},
	"SHA-256 with a salt":   {saltedHash, saltedVerify},
	"bcrypt of 72 bytes":    {func(text string) string { return bcryptHash(text[:min(len(text), 72)]) }, bcryptVerify},
	"bcrypt of the SHA-256": {func(text string) string { return bcryptHash(digest(text)) }, digestVerify},
}

func bcryptHash(text string) string {
	hash, err := bcrypt.GenerateFromPassword([]byte(text), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	return string(hash)
}

func bcryptVerify(stored string, text apikey.Secret) (bool, error) {
	err := bcrypt.CompareHashAndPassword([]byte(stored), []byte(text.Reveal()))
	if errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		return false, nil
	}
	return err == nil, err
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func digestVerify(stored string, text apikey.Secret) (bool, error) {
	return bcryptVerify(stored, apikey.NewSecret(digest(text.Reveal())))
}

const argon2Form = "$argon2id$v=%d$m=%d,t=%d,p=%d$"

func argon2Hash(text string) string {
	const memory, passes, threads = 1 << 10, 1, 1
	salt := []byte(rand.Text()[:16])
	sum := argon2.IDKey([]byte(text), salt, passes, memory, threads, 32)
	return fmt.Sprintf(argon2Form, argon2.Version, memory, passes, threads) +
		base64.RawStdEncoding.EncodeToString(salt) + "$" + base64.RawStdEncoding.EncodeToString(sum)
}

func argon2Verify(stored string, text apikey.Secret) (bool, error) {
	var version, memory, passes uint32
	var threads uint8
	parts := strings.Split(stored, "$")
	if len(parts) != 6 {
		return false, errors.New("not a PHC string of argon2id")
	}
	if _, err := fmt.Sscanf("$"+strings.Join(parts[1:4], "$")+"$", argon2Form, &version, &memory, &passes, &threads); err != nil {
		return false, err
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false, err
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil {
		return false, err
	}
	got := argon2.IDKey([]byte(text.Reveal()), salt, passes, memory, threads, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

func saltedHash(text string) string {
	salt := rand.Text()
	return salt + ":" + digest(salt+text)
}

func saltedVerify(stored string, text apikey.Secret) (bool, error) {
	salt, want, ok := strings.Cut(stored, ":")
	if !ok {
		return false, errors.New("no salt")
	}
	return subtle.ConstantTimeCompare([]byte(digest(salt+text.Reveal())), []byte(want)) == 1, nil
}

// A table has the hashes by the public part of each key: <id>.<secret>.
type table struct {
	rows          map[string]string
	verifications atomic.Int64
	scheme        scheme
}

func newTable(s scheme) *table { return &table{rows: make(map[string]string), scheme: s} }

func (t *table) add(id, secret string) (text string) {
	text = id + "." + secret
	t.rows[id] = t.scheme.hash(text)
	return text
}

func (t *table) legacy() apikey.Legacy {
	return apikey.Legacy{
		Format: apikey.Plain{},
		Find: func(_ context.Context, text apikey.Secret) (apikey.Key, string, error) {
			id, _, _ := strings.Cut(text.Reveal(), ".")
			stored, ok := t.rows[id]
			if !ok {
				return apikey.Key{}, "", apikey.ErrNotFound
			}
			return apikey.Key{ID: id, Owner: "ann", Name: "a key of the old table"}, stored, nil
		},
		Verify: func(stored string, text apikey.Secret) (bool, error) {
			t.verifications.Add(1)
			return t.scheme.verify(stored, text)
		},
	}
}

// newService returns a handler that requires a key, and the manager of the keys.
func newService(t *testing.T, l apikey.Legacy) (http.Handler, *apikey.Manager) {
	t.Helper()
	m := usher.Must(apikey.NewManager(apikey.ManagerConfig{
		Store: apikey.NewMemory(), Format: apikey.Native{Prefix: "shop"}, Legacy: []apikey.Legacy{l},
		OnError: func(_ context.Context, err error) { t.Logf("reported: %v", err) },
	}))
	a := usher.Must(apikey.New(apikey.Config{
		Manager: m, LastUseInterval: -1,
		OnError: func(_ context.Context, err error) { t.Logf("reported: %v", err) },
	}))
	return usher.Authenticate(a).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), m
}

func want(t *testing.T, h http.Handler, text string, status int) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("X-API-Key", text)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != status {
		t.Errorf("%d, want %d: %s", w.Code, status, w.Body)
	}
}

func TestKeysOfTheOldTableStayValidAndAreVerifiedOnce(t *testing.T) {
	for name, s := range schemes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old := newTable(s)
			text := old.add("k17", rand.Text())
			h, m := newService(t, old.legacy())
			want(t, h, "k17."+rand.Text(), http.StatusUnauthorized)
			want(t, h, "k18."+rand.Text(), http.StatusUnauthorized)
			for range 3 {
				want(t, h, text, http.StatusOK)
			}
			if n := old.verifications.Load(); n != 2 {
				t.Errorf("%d verifications, want one of each text", n)
			}
			old.rows = nil
			want(t, h, text, http.StatusOK)
			if _, err := m.Revoke(t.Context(), apikey.Actor{System: true}, "ann", "k17"); err != nil {
				t.Fatal(err)
			}
			want(t, h, text, http.StatusUnauthorized)
		})
	}
}

// The hash of bcrypt covers 72 bytes only, and other languages cut a longer text. What
// follows may differ, but not bring a revoked key back.
func TestARevokedKeyOfBcryptDoesNotReturnWithAnotherEnd(t *testing.T) {
	old := newTable(schemes["bcrypt of 72 bytes"])
	text := old.add("k17", strings.Repeat("s", 80))
	h, m := newService(t, old.legacy())
	want(t, h, text, http.StatusOK)
	if _, err := m.Revoke(t.Context(), apikey.Actor{System: true}, "ann", "k17"); err != nil {
		t.Fatal(err)
	}
	other := text + "t"
	if ok, err := bcryptVerify(old.rows["k17"], apikey.NewSecret(other)); !ok || err != nil {
		t.Fatalf("bcrypt distinguishes the texts: %t, %v", ok, err)
	}
	want(t, h, other, http.StatusUnauthorized)
	want(t, h, text, http.StatusUnauthorized)
}

func TestAHashThatCannotBeReadIs503(t *testing.T) {
	for name, s := range schemes {
		t.Run(name, func(t *testing.T) {
			old := newTable(s)
			text := old.add("k17", rand.Text())
			old.rows["k17"] = "corrupt"
			h, _ := newService(t, old.legacy())
			want(t, h, text, http.StatusServiceUnavailable)
		})
	}
}

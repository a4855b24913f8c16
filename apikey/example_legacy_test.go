package apikey_test

import (
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// The old service has issued keys of the form <id>.<secret>, and has stored a slow hash with
// a salt of each. Its bcrypt or argon2id would take the place of PBKDF2.
func ExampleLegacy() {
	slow := func(text, salt string) []byte {
		sum, err := pbkdf2.Key(sha256.New, text, []byte(salt), 1000, 32)
		if err != nil {
			panic(err)
		}
		return sum
	}
	const key = "k17.correct-horse-battery-staple"
	table := map[string]string{"k17": "NaCl:" + string(slow(key, "NaCl"))}

	verifications := 0
	old := apikey.Legacy{
		Format: apikey.Plain{},
		Find: func(_ context.Context, text apikey.Secret) (apikey.Key, string, error) {
			id, _, _ := strings.Cut(text.Reveal(), ".")
			stored, ok := table[id]
			if !ok {
				return apikey.Key{}, "", apikey.ErrNotFound
			}
			return apikey.Key{ID: id, Owner: "ann", Name: "from before", Scopes: []string{"orders:read"}}, stored, nil
		},
		Verify: func(stored string, text apikey.Secret) (bool, error) {
			verifications++
			salt, sum, _ := strings.Cut(stored, ":")
			return subtle.ConstantTimeCompare([]byte(sum), slow(text.Reveal(), salt)) == 1, nil
		},
	}
	manager := usher.Must(apikey.NewManager(apikey.ManagerConfig{
		Store: apikey.NewMemory(), Format: apikey.Native{Prefix: "shop"}, Legacy: []apikey.Legacy{old},
	}))
	auth := usher.Must(apikey.New(apikey.Config{Manager: manager}))
	defer func() { _ = auth.Close() }()

	for range 3 {
		p, err := auth.Authenticate(request("X-API-Key", key))
		fmt.Println(p.ID, p.Owner, p.Scopes, err)
	}
	fmt.Println("verifications:", verifications)
	// Output:
	// k17 ann [orders:read] <nil>
	// k17 ann [orders:read] <nil>
	// k17 ann [orders:read] <nil>
	// verifications: 1
}

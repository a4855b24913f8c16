package apikeytest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// now returns the time as stores receive it, in whole microseconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func unique() string { return rand.Text() }

// newRecord returns a record of a key that was just created, with every setting, for a
// new owner.
func newRecord() apikey.Record {
	at := now()
	r := apikey.Record{Key: apikey.Key{
		ID:              "key_" + unique(),
		Owner:           "owner_" + unique(),
		Name:            `A "name" with 日本語, ' and \`,
		Description:     "what it is for,\n\tin {two} lines",
		Metadata:        map[string]string{"team": "a,b", "Team": "", "note ": ` "x"='y'\n `},
		Prefix:          "shop_live_a1B2",
		LastFour:        "wxyz",
		Scopes:          []string{"write:orders", "read:orders", "a,b", "{'c'}"},
		Level:           usher.LevelReadWrite,
		Plan:            "pro",
		PlanOverride:    "gold",
		Environment:     "live",
		AllowedNetworks: networks("203.0.113.0/24", "2001:db8::/32", "198.51.100.7/32"),
		CreatedAt:       at,
		CreatedBy:       "api_key:" + unique(),
		UpdatedAt:       at,
		ExpiresAt:       at.Add(24 * time.Hour),
		Parent:          "key_" + unique(),
		Line:            "key_" + unique(),
		Revision:        1,
	}}
	r.Hash = newHash()
	return r
}

// derivedRecord returns a record of a key that was just derived from another.
func derivedRecord() apikey.Record {
	r := newRecord()
	derive(&r)
	return r
}

// usedRecord returns a record with every field set, as a backup may have it.
func usedRecord() apikey.Record {
	r := newRecord()
	r.UpdatedAt = r.CreatedAt.Add(time.Minute)
	r.DisabledAt, r.RevokedAt = r.CreatedAt.Add(time.Second), r.UpdatedAt
	r.DisabledBy = "api_key:" + unique()
	r.DerivedFrom, r.DerivedFromHash = "key_"+unique(), newHash()
	r.LastUsedAt, r.LastUsedFrom = r.CreatedAt.Add(2*time.Second), netip.MustParseAddr("2001:db8::7")
	r.ReplacedBy, r.Revision = "key_"+unique(), 7
	return r
}

// largestRecord returns a record with every value at its bound.
func largestRecord() apikey.Record {
	first, last := time.Time{}.Add(time.Microsecond), time.Date(9999, 12, 30, 0, 0, 0, 0, time.UTC)
	text := func(n int) string { return strings.Repeat("x", n-26) + unique() }
	wide := func(n int) string { return strings.Repeat("𝄞", n) }
	r := apikey.Record{Key: apikey.Key{
		ID:           text(apikey.MaxID),
		Owner:        "  " + strings.Repeat("ö", 113) + unique() + " ",
		Name:         " " + wide(apikey.MaxName-2) + " ",
		Description:  "\r\n" + wide(apikey.MaxDescription-3) + " ",
		Metadata:     map[string]string{},
		Prefix:       text(apikey.MaxPrefix),
		LastFour:     " 9Z ",
		Level:        usher.LevelFull,
		Plan:         text(apikey.MaxPlan),
		PlanOverride: text(apikey.MaxPlan),
		Environment:  text(apikey.MaxEnvironment),
		CreatedAt:    first,
		CreatedBy:    text(apikey.MaxCreatedBy),
		UpdatedAt:    last,
		ExpiresAt:    last,
		DisabledAt:   last.Add(-time.Microsecond),
		DisabledBy:   text(apikey.MaxCreatedBy),
		RevokedAt:    time.Date(2262, 4, 12, 0, 0, 0, 1000, time.UTC), // beyond 64 bits of nanoseconds
		LastUsedAt:   time.Date(2038, 1, 19, 3, 14, 8, 0, time.UTC),   // beyond 32 bits of seconds
		LastUsedFrom: netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
		Parent:       text(apikey.MaxID),
		Line:         text(apikey.MaxID),
		ReplacedBy:   text(apikey.MaxID),
		DerivedFrom:  text(apikey.MaxID),
		Revision:     1 << 33, // beyond 32 bits
	}}
	for i := range apikey.MaxMetadata {
		name := fmt.Sprintf("%02d", i)
		r.Metadata[name+strings.Repeat("名", 20)+"  "] = name + strings.Repeat("é", (apikey.MaxMetadataValue-2)/2)
	}
	for i := range apikey.MaxScopes {
		// Descending, so that a store that sorts them shows.
		r.Scopes = append(r.Scopes, fmt.Sprintf("%02d,%s", 99-i, strings.Repeat("~", apikey.MaxScope-3)))
	}
	for i := range apikey.MaxNetworks {
		addr := netip.AddrFrom16([16]byte{0x20, 0x01, 15: byte(apikey.MaxNetworks - i)})
		r.AllowedNetworks = append(r.AllowedNetworks, netip.PrefixFrom(addr, 128))
	}
	r.AllowedNetworks[0], r.AllowedNetworks[1] = netip.MustParsePrefix("::/0"), netip.MustParsePrefix("0.0.0.0/0")
	for i := range r.Hash {
		r.Hash[i], r.DerivedFromHash[i] = 0xff, 0xff
	}
	random := newHash()
	copy(r.Hash[8:], random[1:17])
	return r
}

func networks(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func newHash() (h apikey.Hash) {
	// rand.Read never returns an error.
	_, _ = rand.Read(h[1:])
	return h
}

// use returns a use from an unknown address.
func use(at time.Time) apikey.Use { return apikey.Use{At: at} }

func insert(t testing.TB, s apikey.Store, r apikey.Record) apikey.Record {
	t.Helper()
	if err := s.Insert(t.Context(), r, apikey.Limits{}); err != nil {
		t.Fatalf("Insert: %v", err)
	}
	return r
}

// want fails unless the store has exactly r under its hash and its ID, and lists it.
func want(t testing.TB, s apikey.Store, r apikey.Record) {
	t.Helper()
	wantFound(t, s, r)
	found, err := s.Lookup(t.Context(), r.Hash)
	same(t, "Lookup", found, r, err)
}

// wantFound fails unless the store has exactly r under its ID, and lists it. It does not
// look r up by its hash, because an [apikey.Cache] does not see uses.
func wantFound(t testing.TB, s apikey.Store, r apikey.Record) {
	t.Helper()
	found, err := s.Find(t.Context(), r.Owner, r.ID)
	same(t, "Find", found, r, err)
	keys, _, err := s.List(t.Context(), r.Owner, 0, 1000)
	i := slices.IndexFunc(keys, func(k apikey.Key) bool { return k.ID == r.ID })
	if err != nil || i < 0 {
		t.Errorf("List: %d keys without %s, %v", len(keys), r.ID, err)
		return
	}
	same(t, "List", recordOf(keys[i], r), r, nil)
}

// recordOf returns the record of k with the hashes of r, which lists do not return.
func recordOf(k apikey.Key, r apikey.Record) apikey.Record {
	r.Key = k
	return r
}

func same(t testing.TB, what string, got, want apikey.Record, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	got, want = canonical(got), canonical(want)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// canonical makes equivalent records equal: times have one location, and empty lists and
// maps are nil.
func canonical(r apikey.Record) apikey.Record {
	for _, at := range []*time.Time{
		&r.CreatedAt, &r.UpdatedAt, &r.ExpiresAt, &r.DisabledAt, &r.RevokedAt, &r.LastUsedAt,
	} {
		*at = at.UTC()
	}
	if len(r.Scopes) == 0 {
		r.Scopes = nil
	}
	if len(r.Metadata) == 0 {
		r.Metadata = nil
	}
	if len(r.AllowedNetworks) == 0 {
		r.AllowedNetworks = nil
	}
	return r
}

// ids returns the IDs of keys in their order.
func ids(keys []apikey.Key) []string {
	list := []string{}
	for _, k := range keys {
		list = append(list, k.ID)
	}
	return list
}

// ended returns a context that has ended.
func ended(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

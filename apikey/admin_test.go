package apikey_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/compare"
)

func names(keys []apikey.Key) (list []string) {
	for _, k := range keys {
		list = append(list, k.Name)
	}
	return list
}

func TestOnlyTheServerItselfMayManageTheKeysOfAllOwners(t *testing.T) {
	var events []apikey.Event
	m := newManager(t, apikey.ManagerConfig{Audit: func(_ context.Context, e apikey.Event) { events = append(events, e) }})
	create(t, m, apikey.Key{})
	events = nil
	for name, by := range map[string]apikey.Actor{
		"nobody":                {},
		"a person":              {Principal: &usher.Principal{ID: "u", Kind: usher.KindJWT, Owner: "ann", Level: usher.LevelFull}},
		"a person without more": {Principal: &usher.Principal{}},
	} {
		_, _, sel := m.Select(t.Context(), by, apikey.Query{Filter: apikey.Filter{Owner: "ann"}})
		_, _, all := m.RevokeAll(t.Context(), by, apikey.Filter{Owner: "ann"}, 1)
		_, purge := m.Purge(t.Context(), by, time.Now(), 1)
		for _, err := range []error{sel, all, purge} {
			if statusOf(err) != 403 {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if len(events) != 6 {
		t.Errorf("%d events, want 6", len(events))
	}
	for _, e := range events {
		if e.Verdict != apikey.Denied || e.Err == nil {
			t.Errorf("%+v", e)
		}
	}
}

func TestAFilterThatNoKeyCanMatchIsInvalid(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{Store: &misbehaving{instead: func(context.Context) { t.Error("the store was called") }}})
	long := strings.Repeat("a", 1000)
	for name, f := range map[string]apikey.Filter{
		"owner": {Owner: "\x00"}, "created_by": {CreatedBy: "\xff"}, "parent": {Parent: long}, "plan": {Plan: long},
		"environment": {Environment: long}, "prefix": {Prefix: long}, "metadata": {Metadata: map[string]string{"": "x"}}, "status": {Status: 99},
	} {
		_, _, sel := m.Select(t.Context(), server, apikey.Query{Filter: f})
		_, _, all := m.RevokeAll(t.Context(), server, f, 1)
		for _, err := range []error{sel, all} {
			if e, ok := errors.AsType[*usher.Error](err); !ok || e.Status != 400 || len(e.Fields) != 1 || e.Fields[0].Name != name {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for name, q := range map[string]apikey.Query{
		"limit": {Limit: 1001}, "limit below": {Limit: -1}, "sort": {Sort: 99}, "cursor": {Cursor: apikey.Cursor{ID: "\x00"}},
		"cursor late": {Cursor: apikey.Cursor{ID: "x", Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}},
	} {
		if _, _, err := m.Select(t.Context(), server, q); statusOf(err) != 400 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := m.RevokeAll(t.Context(), server, apikey.Filter{}, 1); statusOf(err) != 400 {
		t.Errorf("without a condition: %v", err)
	}
	for _, limit := range []int{-1, 0, 1001} {
		_, _, all := m.RevokeAll(t.Context(), server, apikey.Filter{Owner: "ann"}, limit)
		_, purge := m.Purge(t.Context(), server, time.Now(), limit)
		if statusOf(all) != 400 || statusOf(purge) != 400 {
			t.Errorf("limit %d: %v, %v", limit, all, purge)
		}
	}
}

func TestSelectReturnsPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, apikey.ManagerConfig{MaxActive: 1000})
		for i := range 250 {
			create(t, m, apikey.Key{Owner: fmt.Sprint("owner", i%3), Name: fmt.Sprint(i)})
			time.Sleep(time.Second)
		}
		var got []string
		q := apikey.Query{Descending: true}
		for pages := 1; ; pages++ {
			keys, next, err := m.Select(t.Context(), server, q)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, names(keys)...)
			if next.IsZero() {
				if pages != 3 {
					t.Errorf("%d pages, want 3", pages)
				}
				break
			}
			// The cursor passes through a URL.
			text, err := next.MarshalText()
			if err != nil || q.Cursor.UnmarshalText(text) != nil {
				t.Fatal(err)
			}
		}
		if len(got) != 250 || got[0] != "249" || got[249] != "0" {
			t.Errorf("%d keys: %v", len(got), got)
		}
	})
}

// The status is that of the present, unless the caller names another time.
func TestSelectUsesThePresentTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, apikey.ManagerConfig{})
		start := time.Now()
		create(t, m, apikey.Key{ExpiresAt: start.Add(time.Hour)})
		time.Sleep(time.Hour)
		count := func(f apikey.Filter) int {
			keys, _, err := m.Select(t.Context(), server, apikey.Query{Filter: f})
			if err != nil {
				t.Fatal(err)
			}
			return len(keys)
		}
		if count(apikey.Filter{Status: apikey.StatusExpired}) != 1 || count(apikey.Filter{Status: apikey.StatusActive}) != 0 {
			t.Error("the key has not expired")
		}
		if count(apikey.Filter{Status: apikey.StatusActive, Now: start}) != 1 {
			t.Error("the key had expired from the start")
		}
	})
}

func TestTheTextOfACursorIsChecked(t *testing.T) {
	c := apikey.Cursor{Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), ID: "a-key_1"}
	text, err := json.Marshal(c)
	var back apikey.Cursor
	if err != nil || json.Unmarshal(text, &back) != nil || back != c {
		t.Errorf("%s: %v, %v", text, back, err)
	}
	if text, err := (apikey.Cursor{}).MarshalText(); err != nil || len(text) != 0 || back.UnmarshalText(text) != nil || !back.IsZero() {
		t.Errorf("the zero Cursor: %q, %v", text, err)
	}
	early := apikey.Cursor{ID: "x"}
	text, err = early.MarshalText()
	if err != nil || back.UnmarshalText(text) != nil || !back.Time.IsZero() || back != early {
		t.Errorf("a key without a time: %q, %v, %v", text, back, err)
	}
	text, err = apikey.Cursor{ID: "ab"}.MarshalText()
	if err != nil || text[len(text)-1] != 'g' {
		t.Fatalf("%q, %v", text, err)
	}
	for _, bad := range []string{
		string(text[:len(text)-1]) + "h", // the same bytes
		"x", "!", "AAAAAAAAAAA", "AAAAAAAAAAAA=", strings.Repeat("A", 1000),
		base64.RawURLEncoding.EncodeToString([]byte("\x00\x00\x00\x00\x00\x00\x00\x01a b")),
		base64.RawURLEncoding.EncodeToString([]byte("\x7f\xff\xff\xff\xff\xff\xff\xffab")),
		base64.RawURLEncoding.EncodeToString([]byte("\x80\x00\x00\x00\x00\x00\x00\x00ab")),
	} {
		back = c
		if err := back.UnmarshalText([]byte(bad)); err == nil || !back.IsZero() {
			t.Errorf("%.20q: %v, %v", bad, back, err)
		}
	}
}

func TestRevokeAllRevokesAndAuditsWhatMatches(t *testing.T) {
	for layer, over := range map[string]func(apikey.Store) apikey.Store{
		"a Memory":   func(s apikey.Store) apikey.Store { return s },
		"a Cache":    func(s apikey.Store) apikey.Store { return newCache(t, apikey.CacheConfig{Store: s, TTL: time.Hour}) },
		"a database": func(s apikey.Store) apikey.Store { return remote{s.(apikey.Admin)} },
		"a Cache of database": func(s apikey.Store) apikey.Store {
			return newCache(t, apikey.CacheConfig{Store: remote{s.(apikey.Admin)}, TTL: time.Hour})
		},
	} {
		t.Run(layer, func(t *testing.T) {
			var events []apikey.Event
			store := over(apikey.NewMemory())
			m := newManager(t, apikey.ManagerConfig{Store: store, Audit: func(_ context.Context, e apikey.Event) { events = append(events, e) }})
			a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{})
			texts := map[string]string{}
			for i := range 5 {
				name := fmt.Sprint(i)
				_, texts[name] = create(t, m, apikey.Key{Name: name, Owner: "ann", Metadata: map[string]string{"even": fmt.Sprint(i%2 == 0)}})
				if _, err := a.Authenticate(request("X-API-Key", texts[name])); err != nil {
					t.Fatal(err)
				}
			}
			for _, f := range []apikey.Filter{{}, {Now: time.Now()}} {
				if _, _, err := m.RevokeAll(t.Context(), server, f, 10); statusOf(err) != 400 {
					t.Errorf("a filter without conditions: %v", err)
				}
			}
			f := apikey.Filter{Metadata: map[string]string{"even": "true"}}
			events = nil
			revoked, more, err := m.RevokeAll(t.Context(), server, f, 2)
			if err != nil || len(revoked) != 2 || !more {
				t.Fatalf("%v, %v, %v", names(revoked), more, err)
			}
			rest, more, err := m.RevokeAll(t.Context(), server, f, 2)
			if err != nil || len(rest) != 1 || more {
				t.Fatalf("%v, %v, %v", names(rest), more, err)
			}
			var audited []string
			for _, e := range events {
				if e.Action != "revoke_all" || e.Verdict != apikey.Accepted || e.Owner != "ann" {
					t.Errorf("%+v", e)
				}
				audited = append(audited, e.KeyID)
			}
			for i, k := range append(revoked, rest...) {
				if k.RevokedAt.IsZero() || audited[i] != k.ID {
					t.Errorf("%+v is audited as %q", k, audited[i])
				}
			}
			for name, text := range texts {
				_, err := a.Authenticate(request("X-API-Key", text))
				if even := name == "0" || name == "2" || name == "4"; errors.Is(err, apikey.Revoked) != even {
					t.Errorf("%s: %v", name, err)
				}
			}
			if all, more, err := m.RevokeAll(t.Context(), server, apikey.Filter{All: true}, 10); err != nil || len(all) != 2 || more {
				t.Errorf("all: %v, %v, %v", names(all), more, err)
			}
		})
	}
}

// remote is an Admin in another process, without notices.
type remote struct{ apikey.Admin }

// unsure revokes, and reports that it has failed.
type unsure struct{ apikey.Admin }

func (s unsure) RevokeAll(ctx context.Context, f apikey.Filter, at time.Time, limit int) ([]apikey.Record, bool, error) {
	_, _, err := s.Admin.RevokeAll(ctx, f, at, limit)
	return nil, false, errors.Join(err, errors.New("the connection was lost"))
}

// late revokes after its caller has given up.
type late struct{ apikey.Admin }

func (s late) RevokeAll(_ context.Context, f apikey.Filter, at time.Time, limit int) ([]apikey.Record, bool, error) {
	time.Sleep(time.Minute)
	return s.Admin.RevokeAll(context.Background(), f, at, limit)
}

func TestARevokeAllOfUnknownOutcomeEmptiesTheCache(t *testing.T) {
	for name, store := range map[string]func(apikey.Admin) apikey.Admin{
		"made, and reported as failed": func(s apikey.Admin) apikey.Admin { return unsure{s} },
		"made late":                    func(s apikey.Admin) apikey.Admin { return late{s} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := apikey.NewMemory()
				c := newCache(t, apikey.CacheConfig{Store: store(remote{m}), TTL: time.Hour})
				if err := c.Insert(t.Context(), record(0), apikey.Limits{}); err != nil {
					t.Fatal(err)
				}
				mustLookup(t, c, record(0), false)
				if _, _, err := c.RevokeAll(t.Context(), apikey.Filter{Owner: "ann"}, at0, 10); err == nil {
					t.Error("no error")
				}
				mustLookup(t, c, record(0), name == "made, and reported as failed")
				time.Sleep(time.Minute)
				synctest.Wait()
				mustLookup(t, c, record(0), true)
			})
		})
	}
}

func TestPurgeRemovesKeysThatHaveEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []apikey.Event
		store := apikey.NewMemory()
		m := newManager(t, apikey.ManagerConfig{Store: store, Audit: func(_ context.Context, e apikey.Event) { events = append(events, e) }})
		start := time.Now()
		a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{})
		_, text := create(t, m, apikey.Key{ExpiresAt: start.Add(time.Minute)})
		create(t, m, apikey.Key{ExpiresAt: start.Add(time.Hour)})
		time.Sleep(2 * time.Minute)
		events = nil
		if n, err := m.Purge(t.Context(), server, start.Add(2*time.Hour), 10); statusOf(err) != 400 || n != 0 {
			t.Errorf("a time at which keys that are valid have ended: %d, %v", n, err)
		}
		if n, err := m.Purge(t.Context(), server, start.Add(time.Minute), 10); err != nil || n != 0 {
			t.Errorf("before the end: %d, %v", n, err)
		}
		if n, err := m.Purge(t.Context(), server, time.Now(), 10); err != nil || n != 1 {
			t.Errorf("after the end: %d, %v", n, err)
		}
		if len(events) != 2 || events[0].Verdict != apikey.Denied || events[1].Verdict != apikey.Accepted || events[1].Action != "purge" {
			t.Errorf("%+v", events)
		}
		if _, err := a.Authenticate(request("X-API-Key", text)); !errors.Is(err, apikey.Unknown) {
			t.Errorf("%v", err)
		}
	})
}

func TestAStoreThatIsNotAnAdminIsReported(t *testing.T) {
	for layer, over := range layers {
		failures := 0
		m := newManager(t, apikey.ManagerConfig{
			Store:   over(t, silent{apikey.NewMemory()}),
			OnError: func(context.Context, error) { failures++ },
		})
		for range 20 { // as a failure it would stop the calls of the store
			_, _, sel := m.Select(t.Context(), server, apikey.Query{})
			_, _, all := m.RevokeAll(t.Context(), server, apikey.Filter{Owner: "ann"}, 1)
			_, purge := m.Purge(t.Context(), server, time.Now(), 1)
			for _, err := range []error{sel, all, purge} {
				if !errors.Is(err, errors.ErrUnsupported) {
					t.Errorf("%s: %v", layer, err)
				}
			}
		}
		create(t, m, apikey.Key{})
		if failures > 0 {
			t.Errorf("%s: %d failures", layer, failures)
		}
	}
}

func TestAdminCallsHaveADeadline(t *testing.T) {
	for layer, over := range layers {
		t.Run(layer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				m := newManager(t, apikey.ManagerConfig{
					Store:        over(t, hanging{remote{apikey.NewMemory()}, release}),
					StoreTimeout: shortTimeout, OnError: func(context.Context, error) {},
				})
				defer func() { close(release); synctest.Wait() }()
				for name, call := range map[string]func() error{
					"Select":    func() error { _, _, err := m.Select(t.Context(), server, apikey.Query{}); return err },
					"RevokeAll": func() error { _, _, err := m.RevokeAll(t.Context(), server, apikey.Filter{All: true}, 1); return err },
					"Purge":     func() error { _, err := m.Purge(t.Context(), server, time.Now(), 1); return err },
				} {
					start := time.Now()
					if err := call(); !errors.Is(err, usher.ErrUnavailable) || time.Since(start) != shortTimeout {
						t.Errorf("%s: %v after %v", name, err, time.Since(start))
					}
				}
			})
		})
	}
}

// hanging is an Admin whose calls hang.
type hanging struct {
	apikey.Admin
	release chan struct{}
}

func (s hanging) Select(context.Context, apikey.Query) ([]apikey.Key, apikey.Cursor, error) {
	<-s.release
	return nil, apikey.Cursor{}, nil
}

func (s hanging) RevokeAll(context.Context, apikey.Filter, time.Time, int) ([]apikey.Record, bool, error) {
	<-s.release
	return nil, false, nil
}

func (s hanging) Purge(context.Context, time.Time, int) (int, error) {
	<-s.release
	return 0, nil
}

func TestTheStatusOfAKeyIsTheStrongest(t *testing.T) {
	now := time.Now()
	past, future := now.Add(-time.Second), now.Add(1)
	for _, test := range []struct {
		k    apikey.Key
		want apikey.Status
	}{
		{apikey.Key{}, apikey.StatusActive},
		{apikey.Key{ExpiresAt: future, ReplacedBy: "x"}, apikey.StatusActive},
		{apikey.Key{DisabledAt: past}, apikey.StatusDisabled},
		{apikey.Key{DisabledAt: past, ExpiresAt: now}, apikey.StatusExpired},
		{apikey.Key{DisabledAt: past, ExpiresAt: now, RevokedAt: future}, apikey.StatusRevoked},
	} {
		if got := test.k.Status(now); got != test.want || test.k.Active(now) != (got == apikey.StatusActive) || test.k.Ended(now) != (got >= apikey.StatusExpired) {
			t.Errorf("%+v is %v, want %v", test.k, got, test.want)
		}
	}
	var all []string
	for s := range apikey.Status(6) {
		all = append(all, s.String())
	}
	if diff := compare.Diff([]string{"any", "active", "disabled", "expired", "revoked", "Status(5)"}, all); diff != "" {
		t.Error(diff)
	}
}

// Every condition counts for whether a filter is empty, and a key that differs in only
// that does not match.
func TestEveryConditionOfAFilterCounts(t *testing.T) {
	k := apikey.Key{
		Owner: "ann", CreatedBy: "system", Parent: "p", Environment: "live", Plan: "free", PlanOverride: "gold", Prefix: "shop_live_ab",
		CreatedAt: at0, ExpiresAt: at0.Add(time.Hour), Metadata: map[string]string{"a": "1", "b": ""},
	}
	used := k
	used.LastUsedAt = at0.Add(time.Minute)
	matches := []apikey.Filter{
		{Owner: "ann"}, {CreatedBy: "system"}, {Parent: "p"}, {Environment: "live"}, {Plan: "gold"}, {Prefix: "shop_live_ab"}, {Prefix: "s"},
		{Status: apikey.StatusActive, Now: at0}, {Status: apikey.StatusExpired, Now: at0.Add(time.Hour)}, {ExpiresBefore: at0.Add(time.Hour + 1)},
		{UnusedSince: at0.Add(1)}, {Metadata: map[string]string{"a": "1"}}, {Metadata: map[string]string{"b": ""}},
	}
	differ := []apikey.Filter{
		{Owner: "Ann"}, {CreatedBy: "syste"}, {Parent: "q"}, {Environment: "Live"}, {Plan: "free"}, {Prefix: "shop_live_b"}, {Prefix: "shop_live_abc"},
		{Status: apikey.StatusExpired, Now: at0}, {Status: apikey.StatusActive, Now: at0.Add(time.Hour)}, {ExpiresBefore: at0.Add(time.Hour)},
		{UnusedSince: at0}, {Metadata: map[string]string{"a": "1", "b": "x"}}, {Metadata: map[string]string{"c": ""}},
	}
	for i, f := range matches {
		if !f.Matches(&k) || f.Empty() {
			t.Errorf("%+v does not match", f)
		}
		if f := differ[i]; f.Matches(&k) || f.Empty() {
			t.Errorf("%+v matches", f)
		}
	}
	unused := apikey.Filter{UnusedSince: at0.Add(time.Second)}
	if !unused.Matches(&k) || unused.Matches(&used) {
		t.Error("a key that is in use counts as unused")
	}
	never := k
	never.ExpiresAt = time.Time{}
	if (&apikey.Filter{ExpiresBefore: at0.Add(1000 * time.Hour)}).Matches(&never) {
		t.Error("a key that never expires does so soon")
	}
	if !(&apikey.Filter{All: true, Now: at0}).Empty() || !(&apikey.Filter{}).Matches(&k) {
		t.Error("an empty filter has a condition")
	}
}

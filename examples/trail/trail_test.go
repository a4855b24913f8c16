package trail_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/examples/trail"
)

// A service has notes, and shows an owner when and where a key was used.
type service struct {
	keys *apikey.Keys
	url  string
}

func newService(t *testing.T) *service {
	t.Helper()
	uses := trail.New(trail.Config{})
	keys, err := apikey.Open(apikey.ManagerConfig{
		Store:  apikey.NewMemory(),
		Format: apikey.Native{Prefix: "notes", Environments: []string{"live"}},
		Audit:  uses.Audit,
	}, apikey.Config{OnUse: uses.Use, Audit: uses.Audit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keys.Close() })

	mux := http.NewServeMux()
	mux.HandleFunc("GET /notes/{id}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") == "none" {
			usher.NotFound(w, r)
			return
		}
		usher.Respond(w, r, usher.Reply{Data: r.PathValue("id")})
	})
	mux.HandleFunc("GET /keys/{id}/uses", func(w http.ResponseWriter, r *http.Request) {
		p, _ := usher.PrincipalFrom(r.Context())
		usher.Respond(w, r, usher.Reply{Data: uses.Find(trail.Query{Owner: p.Owner, KeyID: r.PathValue("id")})})
	})
	mux.HandleFunc("GET /keys/{id}/days", func(w http.ResponseWriter, r *http.Request) {
		p, _ := usher.PrincipalFrom(r.Context())
		usher.Respond(w, r, usher.Reply{Data: uses.Days(p.Owner, r.PathValue("id"))})
	})
	env := usher.Must(envelope.New(envelope.Config{}))
	client := usher.Must(clientip.New(clientip.Config{TrustedProxies: []string{"127.0.0.1"}}))
	server := httptest.NewServer(usher.Chain(env, client, usher.Authenticate(keys.Authenticator)).Wrap(mux))
	t.Cleanup(server.Close)
	return &service{keys, server.URL}
}

func (s *service) create(t *testing.T, owner string) (apikey.Key, string) {
	t.Helper()
	k, secret, err := s.keys.Manager.Create(t.Context(), apikey.Actor{System: true}, apikey.Key{Owner: owner, Name: "a key"})
	if err != nil {
		t.Fatal(err)
	}
	return k, secret.Reveal()
}

// get sends a request from an address, and decodes the response if it is a success.
func (s *service) get(t *testing.T, key, from, path string, into any) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-API-Key", key)
	r.Header.Set("X-Forwarded-For", from)
	r.Header.Set("User-Agent", "cli/1")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if into != nil {
		if err := json.NewDecoder(response.Body).Decode(&struct{ Data any }{into}); err != nil {
			t.Fatal(err)
		}
	}
	return response.StatusCode
}

func TestWhenAndWhereWasThisKeyUsed(t *testing.T) {
	s := newService(t)
	start := time.Now()
	k, text := s.create(t, "acme")
	_, other := s.create(t, "acme")
	_, foreign := s.create(t, "zeta")
	for i, path := range []string{"/notes/1", "/notes/none", "/notes/2"} {
		s.get(t, text, fmt.Sprintf("198.51.100.%d", i), path, nil)
	}
	s.get(t, other, "198.51.100.9", "/notes/1", nil)
	if _, err := s.keys.Manager.Revoke(t.Context(), apikey.Actor{System: true}, "acme", k.ID); err != nil {
		t.Fatal(err)
	}
	if status := s.get(t, text, "203.0.113.1", "/notes/3", nil); status != http.StatusUnauthorized {
		t.Fatalf("status %d with a revoked key", status)
	}

	var found []trail.Entry
	s.get(t, other, "198.51.100.9", "/keys/"+k.ID+"/uses", &found)
	var got []string
	for i, e := range found {
		got = append(got, fmt.Sprintf("%s %s %s %d %s", e.Action, e.Address, e.Route, e.Status, e.UserAgent))
		if e.Time.Before(start) || i > 0 && e.Time.After(found[i-1].Time) || e.KeyID != k.ID || e.Owner != "acme" {
			t.Errorf("entry %+v", e)
		}
		if (e.RequestID != "") != (e.Action == "use") {
			t.Errorf("%s has the request ID %q", e.Action, e.RequestID)
		}
	}
	want := []string{
		"authenticate 203.0.113.1  0 ",
		"revoke invalid IP  0 ",
		"use 198.51.100.2 GET /notes/{id} 200 cli/1",
		"use 198.51.100.1 GET /notes/{id} 404 cli/1",
		"use 198.51.100.0 GET /notes/{id} 200 cli/1",
		"create invalid IP  0 ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}

	var days []trail.Day
	s.get(t, other, "198.51.100.9", "/keys/"+k.ID+"/days", &days)
	counts := [6]int{}
	for _, d := range days {
		for class, n := range d.ByClass {
			counts[class] += n
		}
	}
	if counts != [6]int{2: 2, 4: 1} {
		t.Errorf("counts %v", counts)
	}

	s.get(t, foreign, "198.51.100.9", "/keys/"+k.ID+"/uses", &found)
	if len(found) != 0 {
		t.Errorf("another owner sees %v", found)
	}
}

func use(owner, id string, at time.Time, status int) apikey.Usage {
	return apikey.Usage{Time: at, Key: &apikey.Key{ID: id, Owner: owner}, Status: status, Address: netip.MustParseAddr("192.0.2.1")}
}

func numbers(entries []trail.Entry) (list []uint64) {
	for _, e := range entries {
		list = append(list, e.Number)
	}
	return list
}

func TestATrailIsBoundedAndPaged(t *testing.T) {
	tr := trail.New(trail.Config{MaxKeys: 2, MaxEntries: 3, Days: 2})
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	day := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for i := range 4 { // 1 to 4
		tr.Use(r, use("acme", "a", day.AddDate(0, 0, i), 200))
	}
	tr.Use(r, use("acme", "b", day, 503)) // 5
	if got := numbers(tr.Find(trail.Query{Owner: "acme"})); !slices.Equal(got, []uint64{5, 4, 3, 2}) {
		t.Errorf("all keys: %v", got)
	}
	if got := numbers(tr.Find(trail.Query{Owner: "acme", KeyID: "a"})); !slices.Equal(got, []uint64{4, 3, 2}) {
		t.Errorf("one key: %v", got)
	}
	var pages [][]uint64
	for q := (trail.Query{Owner: "acme", Limit: 2}); ; {
		page := numbers(tr.Find(q))
		if len(page) == 0 {
			break
		}
		pages, q.Before = append(pages, page), page[len(page)-1]
	}
	if len(pages) != 2 || !slices.Equal(pages[1], []uint64{3, 2}) {
		t.Errorf("pages %v", pages)
	}
	if days := tr.Days("acme", "a"); len(days) != 2 || days[1].Date.Day() != 4 || days[1].ByClass != [6]int{2: 1} {
		t.Errorf("days %v", days)
	}
	tr.Use(r, use("acme", "a", day.AddDate(0, 0, 2), 204)) // of a long request
	tr.Use(r, use("acme", "a", day, 204))                  // too long ago to count
	if days := tr.Days("acme", "a"); len(days) != 2 || days[0].ByClass != [6]int{2: 2} {
		t.Errorf("days after late uses %v", days)
	}
	tr.Use(r, use("zeta", "c", day, 200))
	if got := tr.Find(trail.Query{Owner: "acme", KeyID: "b"}); len(got) != 0 {
		t.Errorf("the key that was used least recently has entries: %v", got)
	}
	if len(tr.Find(trail.Query{Owner: "acme", KeyID: "c"})) != 0 || tr.Days("acme", "c") != nil {
		t.Error("a key of another owner is visible")
	}
}

func TestATrailServesManyAtOnce(t *testing.T) {
	tr := trail.New(trail.Config{MaxKeys: 3, MaxEntries: 5})
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				tr.Use(r, use("acme", fmt.Sprint((i+g)%5), time.Now(), 200))
				tr.Audit(t.Context(), apikey.Event{Owner: "acme", KeyID: "0", Action: "update", Time: time.Now()})
				tr.Find(trail.Query{Owner: "acme"})
				tr.Days("acme", "0")
			}
		})
	}
	wg.Wait()
	if got := len(tr.Find(trail.Query{Owner: "acme"})); got == 0 || got > 15 {
		t.Errorf("%d entries", got)
	}
}

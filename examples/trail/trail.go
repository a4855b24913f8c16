// Package trail keeps in memory when, where and how the API keys of a service were used
// and changed, so that an owner can look it up. It is made to be copied: a service that
// needs more than one node remembers writes the same entries to its database.
//
//	t := trail.New(trail.Config{})
//	keys, err := apikey.Open(
//		apikey.ManagerConfig{Store: store, Format: format, Audit: t.Audit},
//		apikey.Config{OnUse: t.Use, Audit: t.Audit},
//	)
//	uses := t.Find(trail.Query{Owner: "acme", KeyID: id, Limit: 50})
package trail

import (
	"cmp"
	"container/list"
	"context"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
)

// Config bounds a [Trail].
type Config struct {
	// MaxKeys is how many keys have entries; zero means 10,000. Beyond that, the key whose
	// last entry is the oldest is forgotten.
	MaxKeys int
	// MaxEntries is how many entries each key has; zero means 100. Beyond that, the oldest
	// is forgotten.
	MaxEntries int
	// Days is for how many days, including today, the uses of each key are counted; zero
	// means 30. Days begin at midnight UTC.
	Days int
}

// An Entry is one use of a key, one request that was refused because of the key, or one
// change of the key.
type Entry struct {
	// Number is greater than that of each earlier entry.
	Number uint64
	Time   time.Time
	Owner  string
	// KeyID is empty for a change of all keys of the owner.
	KeyID string
	// Action is "use", or the action of an [apikey.Event]. "authenticate" is a request
	// that was refused, for the reason in Verdict.
	Action  string
	Verdict apikey.Verdict
	// Actor is who made a change: the ID of a principal, or "" for the service itself.
	Actor   string
	Address netip.Addr

	// What follows is known of a use.
	Method, Route string
	Status        int
	UserAgent     string
	RequestID     string
}

// A Day is how often a key was used on one day.
type Day struct {
	// Date is midnight UTC.
	Date time.Time
	// ByClass has the number of responses by the first digit of their status, from 1 to 5.
	ByClass [6]int
}

// A Trail has the latest entries of many keys. It is safe for concurrent use.
type Trail struct {
	config Config

	mu     sync.Mutex
	number uint64
	owners map[string]map[string]*history // by owner and ID of the key
	recent list.List                      // of *history; the one with the latest entry is first
}

// A history has the entries and the counts of one key.
type history struct {
	owner, id string
	place     *list.Element
	entries   []Entry // a ring once it is full
	oldest    int
	days      []Day // the latest is last
}

// New returns an empty Trail.
func New(c Config) *Trail {
	return &Trail{
		config: Config{cmp.Or(c.MaxKeys, 10_000), cmp.Or(c.MaxEntries, 100), cmp.Or(c.Days, 30)},
		owners: make(map[string]map[string]*history),
	}
}

// Use records a use. It is for [apikey.Config], as OnUse.
func (t *Trail) Use(r *http.Request, u apikey.Usage) {
	t.record(Entry{
		Time: u.Time, Owner: u.Key.Owner, KeyID: u.Key.ID, Action: "use", Verdict: apikey.Accepted,
		Address: u.Address, Method: u.Method, Route: u.Route, Status: u.Status, UserAgent: u.UserAgent,
		RequestID: envelope.RequestID(r.Context()),
	})
}

// Audit records a change of a key, or a request that was refused because of its key. It is
// for [apikey.Config] and [apikey.ManagerConfig]. A request that was accepted is a use,
// which Use records. A text that is no key has no owner who could look it up.
func (t *Trail) Audit(_ context.Context, e apikey.Event) {
	if e.Owner == "" || e.Action == "authenticate" && e.Verdict == apikey.Accepted {
		return
	}
	entry := Entry{
		Time: e.Time, Owner: e.Owner, KeyID: e.KeyID, Action: e.Action, Verdict: e.Verdict,
		Address: e.Actor.Address,
	}
	if e.Actor.Principal != nil {
		entry.Actor = e.Actor.Principal.ID
	}
	t.record(entry)
}

func (t *Trail) record(e Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.number++
	e.Number = t.number
	h := t.history(e.Owner, e.KeyID)
	if len(h.entries) < t.config.MaxEntries {
		h.entries = append(h.entries, e)
	} else {
		h.entries[h.oldest] = e
		h.oldest = (h.oldest + 1) % len(h.entries)
	}
	if e.Action == "use" {
		h.count(e.Time, e.Status, t.config.Days)
	}
}

// history returns the history of a key, after making room for it.
func (t *Trail) history(owner, id string) *history {
	if h := t.owners[owner][id]; h != nil {
		t.recent.MoveToFront(h.place)
		return h
	}
	if t.recent.Len() >= t.config.MaxKeys {
		t.forget(t.recent.Back().Value.(*history))
	}
	h := &history{owner: owner, id: id}
	h.place = t.recent.PushFront(h)
	if t.owners[owner] == nil {
		t.owners[owner] = make(map[string]*history)
	}
	t.owners[owner][id] = h
	return h
}

func (t *Trail) forget(h *history) {
	t.recent.Remove(h.place)
	delete(t.owners[h.owner], h.id)
	if len(t.owners[h.owner]) == 0 {
		delete(t.owners, h.owner)
	}
}

// count counts a use. Uses arrive almost in order, as those of long requests are late.
func (h *history) count(at time.Time, status, days int) {
	date := at.UTC().Truncate(24 * time.Hour)
	i := len(h.days)
	for i > 0 && h.days[i-1].Date.After(date) {
		i--
	}
	if i == 0 || !h.days[i-1].Date.Equal(date) {
		h.days = slices.Insert(h.days, i, Day{Date: date})
		i++
	}
	if class := status / 100; class >= 1 && class <= 5 {
		h.days[i-1].ByClass[class]++
	}
	if more := len(h.days) - days; more > 0 {
		h.days = slices.Delete(h.days, 0, more)
	}
}

// A Query selects entries.
type Query struct {
	// Owner is the owner of the keys. Nobody sees the entries of another owner.
	Owner string
	// KeyID selects one key; empty means all keys of the owner.
	KeyID string
	// Before selects what is older than the entry with this number, such as the last one of
	// the page before; zero means all.
	Before uint64
	// Limit is the maximum number of entries; zero means 100.
	Limit int
}

// Find returns the entries that q selects, the newest first.
func (t *Trail) Find(q Query) []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := []Entry{} // JSON has [] for it, not null
	for id, h := range t.owners[q.Owner] {
		if q.KeyID != "" && q.KeyID != id {
			continue
		}
		for _, e := range h.entries {
			if q.Before == 0 || e.Number < q.Before {
				found = append(found, e)
			}
		}
	}
	slices.SortFunc(found, func(a, b Entry) int { return cmp.Compare(b.Number, a.Number) })
	return found[:min(len(found), cmp.Or(q.Limit, 100))]
}

// Days returns on which days a key was used, and how often, the latest day last.
func (t *Trail) Days(owner, keyID string) []Day {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.owners[owner][keyID]; h != nil {
		return slices.Clone(h.days)
	}
	return nil
}

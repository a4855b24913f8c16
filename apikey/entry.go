package apikey

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/usher-go/usher"
)

// An entry is a key that a lookup has found.
type entry struct {
	record Record
	// kept is true while a Cache or a Memory keeps the entry, and until is the end of its
	// TTL; zero means none. Until is set before kept is.
	kept  atomic.Bool
	until time.Time
	view  atomic.Pointer[view]
}

// drop records that the entry is kept no longer.
func (e *entry) drop() { e.kept.Store(false) }

// current reports whether a lookup at now would find the entry.
func (e *entry) current(now time.Time) bool {
	return e.kept.Load() && before(now, e.until)
}

// derived reports whether the key has a parent.
func (e *entry) derived() bool {
	return e.record.DerivedFrom != "" || e.record.DerivedFromHash != (Hash{})
}

// isParentOf reports whether the key derived is derived from the key of e.
func (e *entry) isParentOf(derived *entry) bool {
	return e.record.ID == derived.record.DerivedFrom && e.record.Owner == derived.record.Owner && !e.derived()
}

// principalAge bounds how old the result of Config.Principal is.
const principalAge = 10 * time.Second

// A view is what a verifier has made from an entry.
type view struct {
	by        *verifier
	parent    *entry // of a derived key
	until     time.Time
	key       *Key // a derived key has only what its parent has, too
	used      used
	principal usher.Principal
}

// viewOf returns the view of an entry whose parent is nil unless it is derived. It makes
// the view only once while the entry is kept, or once each principalAge.
func (v *verifier) viewOf(e, parent *entry, now time.Time) *view {
	made := e.view.Load()
	if made == nil || made.by != v || made.parent != parent || made.ended(now) {
		made = v.newView(e, parent, now)
		e.view.Store(made)
	}
	return made
}

func (w *view) ended(now time.Time) bool { return !before(now, w.until) }

func (v *verifier) newView(e, parent *entry, now time.Time) *view {
	w := &view{by: v, parent: parent, key: &e.record.Key, used: used{id: e.record.ID}}
	if v.principal != nil {
		w.until = now.Add(principalAge)
	}
	var bound *usher.Principal
	if parent != nil {
		whole := v.viewOf(parent, nil, now)
		if bound = &whole.principal; whole.until.Before(w.until) {
			w.until = whole.until
		}
		own := e.record.Key
		own.Scopes, own.Level = boundedBy(own.Scopes, own.Level, bound)
		w.key = &own
	}
	k := w.key
	p := usher.Principal{
		ID:          k.ID,
		Line:        k.Line,
		Kind:        usher.KindAPIKey,
		Owner:       k.Owner,
		Name:        k.Name,
		Scopes:      k.Scopes,
		Level:       k.Level,
		Plan:        k.plan(),
		Environment: k.Environment,
		Details:     k,
	}
	if v.principal != nil {
		p = v.principal(k, p)
		p.ID, p.Line, p.Kind = k.ID, k.Line, usher.KindAPIKey
		if bound != nil {
			p.Scopes, p.Level = boundedBy(p.Scopes, p.Level, bound)
		}
	}
	p.OnUse = v.onUse(k, &w.used)
	w.principal = p
	return w
}

// boundedBy returns what of these scopes and this level the principal p has as well.
func boundedBy(scopes []string, level usher.Level, p *usher.Principal) ([]string, usher.Level) {
	// A callback may have returned a slice that it still uses.
	scopes = slices.DeleteFunc(slices.Clone(scopes), func(s string) bool { return !p.HasScopes(s) })
	return scopes, min(level, p.Level)
}

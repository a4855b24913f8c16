package apikey

import (
	"context"
	"strconv"
	"time"

	"github.com/usher-go/usher"
)

// Select returns a page of the keys of all owners that match q. Only the server itself may
// do this: by must be an Actor{System: true}. If the store is not an [Admin], the error
// matches [errors.ErrUnsupported].
func (m *Manager) Select(ctx context.Context, by Actor, q Query) (keys []Key, next Cursor, err error) {
	if q.Limit == 0 {
		q.Limit = 100
	}
	q.Filter = q.stored()
	err = m.administer(by, q.Limit, q.faults()...)
	if err == nil {
		keys, next, err = m.store.Select(ctx, q)
	}
	m.failed(ctx, "select", err)
	return keys, next, err
}

// RevokeAll revokes up to limit keys of all owners that match f, from 1 to [MaxLimit], and
// returns them. If more is true, others match, so call it again. Audit is called with each
// key. Only the server itself may do this: by must be an Actor{System: true}. If the store
// is not an [Admin], the error matches [errors.ErrUnsupported].
func (m *Manager) RevokeAll(ctx context.Context, by Actor, f Filter, limit int) (revoked []Key, more bool, err error) {
	f = f.stored()
	if err = m.administer(by, limit, f.faults()...); err == nil {
		err = f.everything()
	}
	var records []Record
	if err == nil {
		records, more, err = m.store.RevokeAll(ctx, f, storedNow(), limit)
	}
	if err != nil {
		m.note(ctx, "revoke_all", by, Key{Owner: f.Owner}, err)
		return nil, false, err
	}
	for _, r := range records {
		m.note(ctx, "revoke_all", by, r.Key, nil)
		revoked = append(revoked, r.Key)
	}
	return revoked, more, nil
}

// Purge removes up to limit keys that ended before this time, from 1 to [MaxLimit], and
// returns how many it has removed; fewer than limit means that none is left. A removed key
// is unknown from then on, and does not prevent an import of the same text. before must not
// be later than the present. Only the server itself may do this: by must be an
// Actor{System: true}. If the store is not an [Admin], the error matches
// [errors.ErrUnsupported].
func (m *Manager) Purge(ctx context.Context, by Actor, before time.Time, limit int) (n int, err error) {
	var faults []usher.Field
	if before.After(time.Now()) {
		faults = append(faults, usher.Field{Name: "before", Message: "'before' must not be in the future."})
	}
	if err = m.administer(by, limit, faults...); err == nil {
		n, err = m.store.Purge(ctx, canonical(before), limit)
	}
	if n > 0 || err != nil {
		m.record(ctx, Event{Action: "purge", Actor: by}, err)
	}
	return n, err
}

// administer returns why the actor may not make a call of an [Admin] with these faults,
// or nil.
func (m *Manager) administer(by Actor, limit int, faults ...usher.Field) error {
	if !by.System {
		return forbidden("Only the service itself may manage the API keys of all accounts.")
	}
	if limit < 1 || limit > MaxLimit {
		faults = append(faults, usher.Field{Name: "limit", Message: "'limit' must be from 1 to " + strconv.Itoa(MaxLimit) + "."})
	}
	if len(faults) > 0 {
		return usher.Invalid(faults...)
	}
	return nil
}

// stored returns f with its times as stores keep them.
func (f Filter) stored() Filter {
	if f.Now.IsZero() {
		f.Now = time.Now()
	}
	f.Now, f.ExpiresBefore, f.UnusedSince = canonical(f.Now), canonical(f.ExpiresBefore), canonical(f.UnusedSince)
	return f
}

// faults returns what is wrong with f: it lists values that no key can have, and that a
// store may not accept.
func (f *Filter) faults() (faults []usher.Field) {
	add := func(name, message string) {
		if message != "" {
			faults = append(faults, usher.Field{Name: name, Message: message})
		}
	}
	add("owner", checkText("owner", f.Owner, MaxOwner))
	add("created_by", checkText("created_by", f.CreatedBy, MaxCreatedBy))
	add("parent", checkText("parent", f.Parent, MaxID))
	add("line", checkText("line", f.Line, MaxID))
	add("derived_from", checkText("derived_from", f.DerivedFrom, MaxID))
	add("plan", checkText("plan", f.Plan, MaxPlan))
	add("environment", checkText("environment", f.Environment, MaxEnvironment))
	add("prefix", checkText("prefix", f.Prefix, MaxPrefix))
	add("metadata", checkMetadata(&Key{Metadata: f.Metadata}))
	if f.Status >= statuses {
		add("status", "There is no such status.")
	}
	return faults
}

func (q *Query) faults() []usher.Field {
	faults := q.Filter.faults()
	if q.Sort >= sorts {
		faults = append(faults, usher.Field{Name: "sort", Message: "There is no such order."})
	}
	if !q.Cursor.IsZero() && !q.Cursor.valid() {
		faults = append(faults, usher.Field{Name: "cursor", Message: "'cursor' must be the one of another page."})
	}
	return faults
}

package apikey_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

var (
	latest = time.Date(9999, 12, 30, 0, 0, 0, 0, time.UTC)
	west   = time.FixedZone("", -14*60*60)
)

// An expiry that cannot be encoded would make the list of keys unreadable forever,
// and one that is rounded to the zero time would make a key eternal.
func TestAnExpiryThatIsNoUsualTimeIsRefusedAndStoresNothing(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	c := newWire(t, apikey.HandlerConfig{Manager: m}, &usher.Principal{ID: "u1", Owner: "ann", Kind: usher.KindJWT})
	k, _ := create(t, m, apikey.Key{ExpiresAt: time.Now().Add(time.Hour)})
	for name, at := range map[string]string{
		"the year 10000 in UTC":                "9999-12-31T23:59:59-14:00",
		"the year 10000 by a minute":           "9999-12-31T23:59:59-00:01",
		"the year 10000 in some zones":         "9999-12-31T23:59:59Z",
		"just above the bound":                 "9999-12-30T00:00:00.000001Z",
		"the zero time of Go and .NET":         "0001-01-01T00:00:00Z",
		"the zero time in another zone":        "0001-01-01T05:00:00+05:00",
		"rounded to the zero time":             "0001-01-01T00:00:00.0000009Z",
		"before the zero time":                 "0001-01-01T00:00:00+14:00",
		"the year 0":                           "0000-01-01T00:00:00Z",
		"a year of five digits, which is none": "10000-01-01T00:00:00Z",
	} {
		t.Run(name, func(t *testing.T) {
			c.t = t
			for _, call := range []struct{ method, target, body string }{
				{"POST", "/", `{"name":"x","expires_at":"` + at + `"}`},
				{"PATCH", "/" + k.ID, `{"expires_at":"` + at + `"}`},
			} {
				status, v := c.do(call.method, call.target, call.body)
				if status != 400 || invalidFields(v) != "expires_at" {
					t.Errorf("%s: %d %v, want 400 that names expires_at", call.method, status, v)
				}
			}
			list := c.list()
			if len(list) != 1 || member(list[0], "expires_at") != k.ExpiresAt.Format(time.RFC3339Nano) {
				t.Errorf("the list is %v, want the one key as it was", list)
			}
		})
	}
	c.t = t
	for _, body := range []string{`{"name":"x","expires_at":"9999-12-30T00:00:00Z"}`, `{"name":"x","expires_at":null}`} {
		if status, v := c.do("POST", "/", body); status != 201 {
			t.Errorf("%s: %d %v", body, status, v)
		}
	}
}

func TestNoMethodOfAManagerStoresAnExpiryThatIsNoUsualTime(t *testing.T) {
	for name, at := range map[string]time.Time{
		"far":               time.Date(9999, 12, 31, 23, 59, 59, 0, west),
		"farther than that": time.Date(290_000, 1, 1, 0, 0, 0, 0, time.UTC),
		"long ago":          time.Time{}.Add(999 * time.Nanosecond),
		"before all time":   time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, apikey.ManagerConfig{})
			k, _ := create(t, m, apikey.Key{})
			template := apikey.Key{Owner: "ann", Name: "x", ExpiresAt: at}
			_, _, createErr := m.Create(t.Context(), server, template)
			_, importErr := m.Import(t.Context(), server, template, apikey.Hash{1: 1})
			_, updateErr := m.Update(t.Context(), server, "ann", k.ID, func(k *apikey.Key) { k.ExpiresAt = at })
			for name, err := range map[string]error{"Create": createErr, "Import": importErr, "Update": updateErr} {
				if e, ok := errors.AsType[*usher.Error](err); !ok || e.Status != 400 || len(e.Fields) != 1 || e.Fields[0].Name != "expires_at" {
					t.Errorf("%s: %v", name, err)
				}
			}
			keys, total, err := m.List(t.Context(), "ann", 0, 10)
			if err != nil || total != 1 || !keys[0].ExpiresAt.IsZero() {
				t.Errorf("%+v, %d, %v", keys, total, err)
			}
		})
	}
}

// Whatever key a store already has, its owner can read, change and rotate it.
func TestAKeyWithAnUnusualTimeInTheStoreBreaksNothing(t *testing.T) {
	for name, spoil := range map[string]func(*apikey.Record){
		"an expiry in the year 10000":   func(r *apikey.Record) { r.ExpiresAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"made in the year -1":           func(r *apikey.Record) { r.CreatedAt = time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC) },
		"disabled in the year 10000":    func(r *apikey.Record) { r.DisabledAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"disabled in the year -1":       func(r *apikey.Record) { r.DisabledAt = time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC) },
		"used and changed at some time": func(r *apikey.Record) { r.LastUsedAt, r.UpdatedAt = latest.AddDate(7, 0, 0), latest.AddDate(9, 0, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			store := apikey.NewMemory()
			r := record(0)
			r.CreatedAt = time.Now().UTC()
			spoil(&r)
			if err := store.Insert(t.Context(), r, apikey.Limits{}); err != nil {
				t.Fatal(err)
			}
			views := map[string]apikey.HandlerConfig{
				"the usual views": {},
				"views of one's own in another time zone": {
					KeyView: func(k apikey.Key) any {
						return map[string]time.Time{"e": k.ExpiresAt.In(west), "c": k.CreatedAt.In(west)}
					},
					ListView: func(keys []apikey.Key) any { return keys },
				},
			}
			for name, config := range views {
				config.Manager = newManager(t, apikey.ManagerConfig{Store: store})
				c := newWire(t, config, &usher.Principal{ID: "u1", Owner: "ann", Kind: usher.KindJWT})
				if list := c.list(); len(list) == 0 {
					t.Errorf("%s: %v", name, list)
				}
				if status, v := c.do("GET", "/"+r.ID, ""); status != 200 {
					t.Errorf("%s: find: %d %v", name, status, v)
				}
				if status, v := c.do("PATCH", "/"+r.ID, `{"name":"y"}`); status != 200 {
					t.Errorf("%s: update: %d %v", name, status, v)
				}
			}
			m := newManager(t, apikey.ManagerConfig{Store: store})
			next, _, err := m.Rotate(t.Context(), server, "ann", r.ID, time.Hour)
			if err != nil || next.ExpiresAt.After(latest) || next.CreatedAt.Year() < 2000 {
				t.Errorf("rotation: %+v, %v", next, err)
			}
		})
	}
}

func TestALifetimeIsBoundedFromTheCreationOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		store := apikey.NewMemory()
		m := newManager(t, apikey.ManagerConfig{Store: store, MaxLifetime: 90 * day})
		start := time.Now().UTC()
		k, _ := create(t, m, apikey.Key{})
		if !k.ExpiresAt.Equal(start.Add(90 * day)) {
			t.Errorf("a key without an expiry: %v", k.ExpiresAt)
		}
		if k, err := m.Import(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"}, apikey.Hash{1: 1}); err != nil || !k.ExpiresAt.Equal(start.Add(90*day)) {
			t.Errorf("an imported key: %v, %v", k.ExpiresAt, err)
		}
		if _, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x", ExpiresAt: start.Add(90*day + 1)}); statusOf(err) != 400 {
			t.Errorf("a later expiry: %v", err)
		}
		time.Sleep(30 * day)
		for name, at := range map[string]time.Time{"never": {}, "later than 90 days after the creation": start.Add(90*day + time.Second)} {
			if _, err := m.Update(t.Context(), server, "ann", k.ID, func(k *apikey.Key) { k.ExpiresAt = at }); statusOf(err) != 400 {
				t.Errorf("updated to expire %s: %v", name, err)
			}
		}
		shorter, err := m.Update(t.Context(), server, "ann", k.ID, func(k *apikey.Key) { k.ExpiresAt = start.Add(60 * day) })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Update(t.Context(), server, "ann", k.ID, func(k *apikey.Key) { k.ExpiresAt = start.Add(90 * day) }); err != nil {
			t.Errorf("back to 90 days: %v, from %v", err, shorter.ExpiresAt)
		}
		next, _, err := m.Rotate(t.Context(), server, "ann", k.ID, time.Hour)
		if err != nil || !next.ExpiresAt.Equal(start.Add(90*day)) {
			t.Errorf("a rotation has changed the expiry to %v, %v", next.ExpiresAt, err)
		}

		// A key that is older than the bound can be renamed, and is bounded when it is
		// rotated.
		eternal, _ := create(t, newManager(t, apikey.ManagerConfig{Store: store}), apikey.Key{})
		if _, err := m.Update(t.Context(), server, "ann", eternal.ID, func(k *apikey.Key) { k.Name = "y" }); err != nil {
			t.Errorf("renaming an eternal key: %v", err)
		}
		next, _, err = m.Rotate(t.Context(), server, "ann", eternal.ID, time.Hour)
		if err != nil || !next.ExpiresAt.Equal(time.Now().Add(90*day)) {
			t.Errorf("the successor of an eternal key expires at %v, %v", next.ExpiresAt, err)
		}
	})
}

func TestALifetimeNeverReachesBeyondTheUsualTimes(t *testing.T) {
	store := apikey.NewMemory()
	r := record(0)
	r.CreatedAt = latest.Add(-time.Hour)
	if err := store.Insert(t.Context(), r, apikey.Limits{}); err != nil {
		t.Fatal(err)
	}
	m := newManager(t, apikey.ManagerConfig{Store: store, MaxLifetime: 48 * time.Hour})
	for at, status := range map[time.Time]int{latest: 0, latest.Add(time.Hour): 400} {
		_, err := m.Update(t.Context(), server, "ann", r.ID, func(k *apikey.Key) { k.ExpiresAt = at })
		if statusOf(err) != status || (err == nil) != (status == 0) {
			t.Errorf("%v: %v", at, err)
		}
	}
}

package apikey_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/usher-go/usher/apikey"
)

func TestAnOwnerHas100ActiveKeysByDefault(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	for range 100 {
		create(t, m, apikey.Key{})
	}
	if _, _, err := m.Create(t.Context(), server, apikey.Key{Owner: "ann", Name: "x"}); !errors.Is(err, apikey.ErrLimit) {
		t.Errorf("the key number 101: %v", err)
	}
}

func TestTheLabelOfAFormatIsBounded(t *testing.T) {
	for name, test := range map[string]struct {
		prefix, environment int
		valid               bool
	}{
		"the longest prefix and environment": {32, 16, true},
		"a longer prefix":                    {33, 16, false},
		"a longer environment":               {32, 17, false},
	} {
		prefix, environments := strings.Repeat("p", test.prefix), []string{strings.Repeat("e", test.environment)}
		for _, f := range []apikey.Format{
			apikey.Native{Prefix: prefix, Environments: environments},
			apikey.Opaque{Prefix: prefix, Environments: environments},
			apikey.Split{Prefix: prefix, Environments: environments},
		} {
			if _, err := apikey.NewManager(apikey.ManagerConfig{Store: apikey.NewMemory(), Format: f}); (err == nil) != test.valid {
				t.Errorf("%T with %s: %v", f, name, err)
			}
		}
	}
}

// lost is a store whose connection is lost after it has made a change.
type lost struct {
	apikey.Store
	updates int
}

func (s *lost) Update(ctx context.Context, r apikey.Record) error {
	s.updates++
	return errors.Join(s.Store.Update(ctx, r), errUnclear)
}

// A change whose outcome is unknown may have been made, so only a conflict is tried again.
func TestAChangeOfUnknownOutcomeIsNotTriedAgain(t *testing.T) {
	s := &lost{Store: apikey.NewMemory()}
	m := newManager(t, apikey.ManagerConfig{Store: s, OnError: func(context.Context, error) {}})
	k, _ := create(t, m, apikey.Key{})
	if _, err := m.Update(t.Context(), server, k.Owner, k.ID, func(k *apikey.Key) { k.Name += "!" }); !errors.Is(err, errUnclear) {
		t.Error(err)
	}
	if found, err := m.Find(t.Context(), k.Owner, k.ID); err != nil || found.Name != "a key!" || s.updates != 1 {
		t.Errorf("%d updates made the name %q: %v", s.updates, found.Name, err)
	}
}

package apikeytest_test

import (
	"bytes"
	"context"
	"strings"
	"sync"

	"github.com/usher-go/usher/apikey"
)

const (
	byBytes    = "owners and IDs are compared byte by byte"
	everyByte  = "every byte of a hash counts"
	newestOnly = "a list is paged, with the newest key first"
)

// textFaults has stores that compare loosely.
var textFaults = map[string]fault{
	"compares owners by a collation":        owners(strings.ToLower),
	"ignores blanks behind owners":          owners(func(s string) string { return strings.TrimRight(s, " ") }),
	"ignores blanks around owners":          owners(strings.TrimSpace),
	"ignores accents of owners":             owners(func(s string) string { return strings.NewReplacer("\u00e9", "e\u0301").Replace(s) }),
	"compares owners by a language":         owners(func(s string) string { return strings.ReplaceAll(s, "\u00df", "ss") }),
	"finds owners by a pattern":             owners(func(s string) string { return strings.NewReplacer("%", "b", "_", "c").Replace(s) }),
	"compares IDs by a collation":           sameIDs(strings.ToLower),
	"ignores marks in IDs":                  sameIDs(func(s string) string { return strings.ReplaceAll(s, "-", "_") }),
	"compares 16 bytes of a hash":           hashes(func(h apikey.Hash) apikey.Hash { clear(h[17:]); return h }),
	"compares 31 bytes of a hash":           hashes(func(h apikey.Hash) apikey.Hash { clear(h[32:]); return h }),
	"compares hashes without their version": hashes(func(h apikey.Hash) apikey.Hash { h[0] = 0; return h }),
	"compares hashes as text": hashes(func(h apikey.Hash) (folded apikey.Hash) {
		copy(folded[:], bytes.ToLower(h[:]))
		return folded
	}),
	"trims hashes": hashes(func(h apikey.Hash) (trimmed apikey.Hash) {
		copy(trimmed[:], bytes.TrimSpace(h[:]))
		return trimmed
	}),
	"orders a list by a collation": {newestOnly, func(s *store) {
		s.list = func(ctx context.Context, owner string, offset, limit int) ([]apikey.Key, int, error) {
			return reordered(ctx, s, owner, offset, limit, func(a, b apikey.Key) int {
				if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
					return c
				}
				return strings.Compare(strings.ToLower(b.ID), strings.ToLower(a.ID))
			})
		}
	}},
	"orders a list by time alone": {newestOnly, func(s *store) {
		s.list = func(ctx context.Context, owner string, offset, limit int) ([]apikey.Key, int, error) {
			return reordered(ctx, s, owner, offset, limit, func(a, b apikey.Key) int {
				if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
					return c
				}
				return strings.Compare(a.ID, b.ID)
			})
		}
	}},
	"orders a list by numbers": {newestOnly, func(s *store) {
		s.list = func(ctx context.Context, owner string, offset, limit int) ([]apikey.Key, int, error) {
			return reordered(ctx, s, owner, offset, limit, func(a, b apikey.Key) int {
				if c := float(b.CreatedAt).Compare(float(a.CreatedAt)); c != 0 {
					return c
				}
				return strings.Compare(b.ID, a.ID)
			})
		}
	}},
	"lists the key that was added last first": {newestOnly, func(s *store) {
		var mu sync.Mutex
		added := map[string]int{}
		s.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
			mu.Lock()
			added[r.ID] = len(added)
			mu.Unlock()
			return s.Memory.Insert(ctx, r, limits)
		}
		s.list = func(ctx context.Context, owner string, offset, limit int) ([]apikey.Key, int, error) {
			mu.Lock()
			defer mu.Unlock()
			return reordered(ctx, s, owner, offset, limit, func(a, b apikey.Key) int { return added[b.ID] - added[a.ID] })
		}
	}},
	"counts only the page": {newestOnly, func(s *store) {
		s.list = func(ctx context.Context, owner string, offset, limit int) ([]apikey.Key, int, error) {
			keys, _, err := s.Memory.List(ctx, owner, offset, limit)
			return keys, len(keys), err
		}
	}},
	"lists no revoked keys": {newestOnly, func(s *store) {
		s.list = func(ctx context.Context, owner string, offset, limit int) ([]apikey.Key, int, error) {
			keys, total, err := s.Memory.List(ctx, owner, offset, limit)
			var active []apikey.Key
			for _, k := range keys {
				if k.RevokedAt.IsZero() {
					active = append(active, k)
				}
			}
			return active, total, err
		}
	}},
}

// aliases replaces a value by the first one that looks the same.
type aliases[T comparable] struct {
	mu    sync.Mutex
	fold  func(T) T
	first map[T]T
}

func (a *aliases[T]) of(v T) T {
	a.mu.Lock()
	defer a.mu.Unlock()
	if first, ok := a.first[a.fold(v)]; ok {
		return first
	}
	return v
}

// add reports whether v looks different from all others.
func (a *aliases[T]) add(v T) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.first[a.fold(v)]; ok {
		return false
	}
	a.first[a.fold(v)] = v
	return true
}

// owners returns the fault of a store that confuses owners that are the same when folded.
func owners(fold func(string) string) fault {
	return fault{byBytes, func(s *store) {
		a := &aliases[string]{fold: fold, first: map[string]string{}}
		s.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
			a.add(r.Owner)
			return s.Memory.Insert(ctx, r, limits)
		}
		s.find = func(ctx context.Context, owner, id string) (apikey.Record, error) {
			r, err := s.Memory.Find(ctx, owner, id)
			if err != nil {
				r, err = s.Memory.Find(ctx, a.of(owner), id)
			}
			return r, err
		}
	}}
}

func sameIDs(fold func(string) string) fault {
	return fault{byBytes, func(s *store) {
		a := &aliases[string]{fold: fold, first: map[string]string{}}
		s.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
			if !a.add(r.ID) {
				return apikey.ErrConflict
			}
			return s.Memory.Insert(ctx, r, limits)
		}
	}}
}

func hashes(fold func(apikey.Hash) apikey.Hash) fault {
	return fault{everyByte, func(s *store) {
		a := &aliases[apikey.Hash]{fold: fold, first: map[apikey.Hash]apikey.Hash{}}
		s.insert = func(ctx context.Context, r apikey.Record, limits apikey.Limits) error {
			if !a.add(r.Hash) {
				return apikey.ErrConflict
			}
			return s.Memory.Insert(ctx, r, limits)
		}
		s.lookup = func(ctx context.Context, h apikey.Hash) (apikey.Record, error) { return s.Memory.Lookup(ctx, a.of(h)) }
	}}
}

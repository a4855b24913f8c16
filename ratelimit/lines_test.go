package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/internal/guard"
)

// A serialStore makes all calls of the decisions it is asked for one by one, in a second
// Memory at the same instants, and records what each of them would have been reported.
type serialStore struct {
	*Memory
	serial *Memory
	random *rand.Rand
	// questions are what one decision each asks for.
	questions []Decision

	mu        sync.Mutex
	admitted  map[string][]string  // by question: the results of those that fit
	refused   map[string][]refusal // and of those that would not have
	trips     int
	decisions int
}

// A refusal is What a decision at an instant would have reported.
type refusal struct {
	at      time.Time
	results string
}

func newSerialStore(seed uint64) *serialStore {
	return &serialStore{
		Memory: newMemory(100), serial: newMemory(100), random: rand.New(rand.NewPCG(seed, 13)),
		admitted: make(map[string][]string), refused: make(map[string][]refusal),
	}
}

// results are those of a decision, without its ID.
func results(d *Decision) string {
	var b strings.Builder
	for i := range d.Charges {
		c := &d.Charges[i]
		fmt.Fprintf(&b, "%s: %v %d %v %v %d; ", c.Policy, c.Violated, c.Remaining, c.Reset, c.Wait, c.TakenAt)
	}
	return b.String()
}

// marker is the policy whose cost is how many decisions there are in one. Its key is the
// question that they ask.
const marker = "marker"

func (s *serialStore) pause() {
	s.mu.Lock()
	d := time.Duration(s.random.IntN(4)) * 500 * time.Microsecond
	s.mu.Unlock()
	time.Sleep(d)
}

func (s *serialStore) Take(ctx context.Context, d *Decision) error {
	s.pause()
	defer s.pause()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trips++
	last := len(d.Charges) - 1
	n, question := d.Charges[last].Cost, d.Charges[last].Key.text
	one := func(peek bool) *Decision {
		number, _ := strconv.Atoi(question)
		own := &Decision{Charges: slices.Clone(s.questions[number].Charges)}
		for i := range own.Charges {
			c := &own.Charges[i]
			c.Windows = d.Charges[i].Windows
			if peek { // but as the first decision under a limit, which begins with debts
				c.Cost, c.MinRemaining = 0, c.need()
			}
		}
		if err := s.serial.Take(ctx, own); err != nil {
			panic(err)
		}
		return own
	}
	if err := s.Memory.Take(ctx, d); err != nil {
		return err
	}
	if d.Admitted {
		for range n {
			own := one(false)
			if !own.Admitted {
				return fmt.Errorf("%d decisions fit together, but not one after another", n)
			}
			s.admitted[question] = append(s.admitted[question], results(own))
		}
	}
	if next := one(true); !next.Admitted {
		s.refused[question] = append(s.refused[question], refusal{time.Now(), results(next)})
	}
	return nil
}

func (s *serialStore) Adjust(ctx context.Context, d *Decision) error {
	s.pause()
	s.mu.Lock()
	defer s.mu.Unlock()
	own := &Decision{Charges: slices.Clone(d.Charges)}
	for i := range own.Charges {
		own.Charges[i].table = nil
	}
	if err := s.serial.Adjust(ctx, own); err != nil {
		return err
	}
	if err := s.Memory.Adjust(ctx, d); err != nil {
		return err
	}
	for i := range d.Charges {
		if got, want := d.Charges[i].Moved, own.Charges[i].Moved; got != want {
			return fmt.Errorf("%d units moved, want %d", got, want)
		}
	}
	return nil
}

// reported checks the results of a decision that began at a time.
func (s *serialStore) reported(t *testing.T, d *Decision, began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.decisions++
	question, got := d.Charges[len(d.Charges)-1].Key.text, results(d)
	if d.Admitted {
		i := slices.Index(s.admitted[question], got)
		if i < 0 {
			t.Errorf("admitted with %s, want one of %q", got, s.admitted[question])
			return
		}
		s.admitted[question] = slices.Delete(s.admitted[question], i, i+1)
		return
	}
	if !slices.ContainsFunc(s.refused[question], func(r refusal) bool { return r.results == got && !r.at.Before(began) }) {
		t.Errorf("refused with %s, want one of %v since %v", got, s.refused[question], began)
	}
}

// Whatever decisions run at the same time, on one node or several, each has what it
// would have been reported in some order one after another, and charges and refunds as much.
func TestCombinedDecisionsAreThoseOfSomeOrder(t *testing.T) {
	limits := []Limit{
		RollingWindow(20, 50*time.Millisecond), RollingWindow(300, 100*time.Millisecond), RollingWindow(7, time.Second),
		TokenBucket(3000, time.Second, 30), TokenBucket(7, 9*time.Millisecond, 11), TokenBucket(1, time.Second, 40),
		CalendarWindow(50, Minute), CalendarWindow(13, Minute), Nothing(), TokenBucket(1000, time.Second, 1000),
	}
	trips, decisions := 0, 0
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			store := newSerialStore(seed)
			var nodes []*sharedStore
			timeout := []time.Duration{8 * time.Millisecond, time.Minute}[seed%2]
			for range 1 + random.IntN(2) {
				s := newSharedStore(&Config{Store: store, Lease: time.Minute, StoreTimeout: timeout}, nil, nil)
				// Decisions wait as long as their time asks, but calls do not time out.
				s.lines.timeout = time.Minute
				s.takes, s.adjusts = guardOfTests(), guardOfTests()
				nodes = append(nodes, s)
			}
			// Questions share keys, under limits and costs of their own.
			for q := range 4 {
				var d Decision
				for p := range 1 + random.IntN(3) {
					d.Charges = append(d.Charges, Charge{
						Policy: fmt.Sprint("p", p), Key: TextKey(fmt.Sprint(random.IntN(2))),
						Limit: limits[random.IntN(len(limits))], Cost: random.Int64N(4), MinRemaining: random.Int64N(2) * random.Int64N(5),
					})
				}
				d.Charges = append(d.Charges, Charge{
					Policy: marker, Key: TextKey(fmt.Sprint(q)), Limit: RollingWindow(1_000_000, time.Hour), Cost: 1,
				})
				store.questions = append(store.questions, d)
			}
			var wg sync.WaitGroup
			for range 200 {
				q, node := store.questions[random.IntN(4)], nodes[random.IntN(len(nodes))]
				refunds := random.IntN(3) == 0
				wg.Go(func() {
					d := &Decision{Charges: slices.Clone(q.Charges)}
					began := time.Now()
					if err := node.Take(context.Background(), d); err != nil {
						t.Error(err)
						return
					}
					store.reported(t, d, began)
					if !d.Admitted || !refunds {
						return
					}
					for i := range d.Charges {
						d.Charges[i].Cost /= -2
					}
					if err := node.Adjust(context.Background(), d); err != nil {
						t.Error(err)
					}
				})
				if random.IntN(16) == 0 {
					synctest.Wait()
					time.Sleep(time.Duration(random.IntN(8)) * 300 * time.Microsecond)
				}
			}
			wg.Wait()
			synctest.Wait() // for the calls that end after their decisions
			for question, left := range store.admitted {
				if len(left) > 0 {
					t.Errorf("question %s: nobody was reported %q", question, left)
				}
			}
			for _, q := range store.questions {
				got, want := &Decision{Charges: slices.Clone(q.Charges)}, &Decision{Charges: slices.Clone(q.Charges)}
				if err := store.Memory.Take(t.Context(), got); err != nil {
					t.Fatal(err)
				}
				if err := store.serial.Take(t.Context(), want); err != nil {
					t.Fatal(err)
				}
				if results(got) != results(want) {
					t.Errorf("afterwards %s, want %s", results(got), results(want))
				}
			}
			for _, s := range nodes {
				if l := s.lines; len(l.byHash) > 0 || l.waiting > 0 {
					t.Errorf("%d lines and %d decisions in them are left", len(l.byHash), l.waiting)
				}
			}
			trips, decisions = trips+store.trips, decisions+store.decisions
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d calls for %d decisions", trips, decisions)
	if trips*3 > decisions*2 {
		t.Errorf("%d calls for %d decisions: few were combined", trips, decisions)
	}
}

// A line that all have left while its call hangs may serve another key before that call
// ends.
func TestALineServesOneKeyAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		store := &hangingStore{newMemory(100), release}
		s := newSharedStore(&Config{Store: store, Lease: time.Minute, StoreTimeout: 4 * time.Second}, nil, nil)
		var wg sync.WaitGroup
		take := func(ctx context.Context, key string) {
			wg.Go(func() {
				d := &Decision{Charges: []Charge{{Policy: "p", Key: TextKey(key), Limit: RollingWindow(10, time.Hour), Cost: 1}}}
				_ = s.Take(ctx, d)
			})
			synctest.Wait()
		}
		take(t.Context(), "hangs")
		ctx, leave := context.WithCancel(t.Context())
		take(ctx, "hangs")
		leave()
		time.Sleep(time.Second + 1) // others have waited for a second
		close(release)
		wg.Wait()
		synctest.Wait() // for the calls that end after their decisions
		store.release = make(chan struct{})
		take(t.Context(), "one")
		take(t.Context(), "another")
		if n := len(s.lines.byHash); n != 2 {
			t.Errorf("%d lines for two keys", n)
		}
		take(t.Context(), "one")
		if n := s.lines.waiting; n != 1 {
			t.Errorf("%d decisions wait, want one", n)
		}
		close(store.release)
		wg.Wait()
		synctest.Wait()
		if l := s.lines; len(l.byHash) > 0 || l.waiting > 0 {
			t.Errorf("%d lines and %d decisions in them are left", len(l.byHash), l.waiting)
		}
	})
}

// A hangingStore decides once it is released.
type hangingStore struct {
	*Memory
	release chan struct{}
}

func (s *hangingStore) Take(ctx context.Context, d *Decision) error {
	<-s.release
	return s.Memory.Take(ctx, d)
}

func guardOfTests() *guard.Guard { return guard.New(time.Minute, maxCalls) }

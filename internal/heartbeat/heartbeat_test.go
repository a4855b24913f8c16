package heartbeat_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-go/usher/internal/heartbeat"
	"github.com/usher-go/usher/internal/leak"
	"github.com/usher-go/usher/internal/race"
)

func TestMain(m *testing.M) { leak.Main(m) }

type item = heartbeat.Item[int]

// A call is a call of fire.
type call struct {
	at    time.Duration
	batch []int
}

// A recorder records calls of fire.
type recorder struct {
	began time.Time
	mu    sync.Mutex
	calls []call
}

func newRecorder() *recorder { return &recorder{began: time.Now()} }

func (r *recorder) fire(batch []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(batch)
	r.calls = append(r.calls, call{time.Since(r.began), batch})
}

func (r *recorder) want(t *testing.T, want ...call) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.calls, func(a, b call) int {
		if a.at != b.at {
			return int(a.at - b.at)
		}
		return slices.Compare(a.batch, b.batch)
	})
	if !slices.EqualFunc(r.calls, want, func(a, b call) bool { return a.at == b.at && slices.Equal(a.batch, b.batch) }) {
		t.Errorf("calls %v, want %v", r.calls, want)
	}
}

const second = time.Second

func TestAnyLooksAtTheItemsThatAreScheduled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := heartbeat.New(0, 10, func([]int) {})
		is := func(n int) bool { return h.Any(func(i int) bool { return i == n }) }
		items := []item{{Value: 0}, {Value: 1}, {Value: 2}}
		for i := range items[:2] {
			h.Schedule(&items[i], time.Now().Add(time.Duration(i+1)*second))
		}
		if !is(0) || !is(1) || is(2) {
			t.Error("Any does not see the two items that are scheduled, and no other")
		}
		h.Remove(&items[1])
		time.Sleep(second + 1)
		if is(0) || is(1) {
			t.Error("Any sees an item that has been due, or was removed")
		}
	})
}

func TestItemsAreDueTogetherOrApart(t *testing.T) {
	for _, c := range []struct {
		name  string
		slack time.Duration
		most  int
		due   []time.Duration
		want  []call
	}{
		{"each in its own time", 0, 10, []time.Duration{3 * second, second, 2 * second}, []call{{second, []int{1}}, {2 * second, []int{2}}, {3 * second, []int{0}}}},
		{"together at the same time", 0, 10, []time.Duration{second, second}, []call{{second, []int{0, 1}}}},
		{"together within the slack", second, 10, []time.Duration{second, 2 * second, 2*second + 1}, []call{{second, []int{0, 1}}, {2*second + 1, []int{2}}}},
		{"at most so many in one call", second, 2, []time.Duration{second, second + 1, second + 2, second + 3, second + 4}, []call{
			{second, []int{0, 1}}, {second, []int{2, 3}}, {second, []int{4}},
		}},
		{"at once if the time is past", 0, 10, []time.Duration{-second}, []call{{0, []int{0}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRecorder()
				h := heartbeat.New(c.slack, c.most, r.fire)
				for i, due := range c.due {
					h.Schedule(&item{Value: i}, r.began.Add(due))
				}
				time.Sleep(time.Hour)
				r.want(t, c.want...)
			})
		})
	}
}

func TestAnItemIsDueAtItsLastTimeAndOnce(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(h *heartbeat.Heartbeat[int], a, b *item, began time.Time)
		want   []call
	}{
		{"later", func(h *heartbeat.Heartbeat[int], a, _ *item, began time.Time) { h.Schedule(a, began.Add(5*second)) }, []call{{2 * second, []int{2}}, {5 * second, []int{1}}}},
		{"earlier", func(h *heartbeat.Heartbeat[int], _, b *item, began time.Time) { h.Schedule(b, began.Add(second/2)) }, []call{{second / 2, []int{2}}, {second, []int{1}}}},
		{"never", func(h *heartbeat.Heartbeat[int], a, _ *item, _ time.Time) { h.Remove(a) }, []call{{2 * second, []int{2}}}},
		{"never, removed twice", func(h *heartbeat.Heartbeat[int], a, _ *item, _ time.Time) { h.Remove(a); h.Remove(a) }, []call{{2 * second, []int{2}}}},
		{"again", func(h *heartbeat.Heartbeat[int], a, _ *item, began time.Time) {
			h.Remove(a)
			h.Schedule(a, began.Add(3*second))
		}, []call{{2 * second, []int{2}}, {3 * second, []int{1}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRecorder()
				h := heartbeat.New(0, 10, r.fire)
				a, b := &item{Value: 1}, &item{Value: 2}
				h.Schedule(a, r.began.Add(second))
				h.Schedule(b, r.began.Add(2*second))
				c.change(h, a, b, r.began)
				time.Sleep(time.Hour)
				r.want(t, c.want...)
				if n := h.Len(); n != 0 {
					t.Errorf("%d items are still scheduled", n)
				}
			})
		})
	}
}

// A removed item leaves a timer that fires for nothing. Those that are due within the
// slack after it do not go early.
func TestARemovedItemTakesNoOthersWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		h := heartbeat.New(second, 10, r.fire)
		removed := &item{Value: 1}
		h.Schedule(removed, r.began.Add(second))
		h.Schedule(&item{Value: 2}, r.began.Add(2*second))
		h.Remove(removed)
		time.Sleep(time.Hour)
		r.want(t, call{2 * second, []int{2}})
	})
}

// A call of fire that does not return delays no other.
func TestACallThatHangsDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		end := make(chan struct{})
		h := heartbeat.New(0, 1, func(batch []int) {
			if batch[0] == 0 {
				<-end
			}
			r.fire(batch)
		})
		for i := range 3 {
			h.Schedule(&item{Value: i}, r.began.Add(second))
		}
		h.Schedule(&item{Value: 3}, r.began.Add(2*second))
		time.Sleep(time.Hour)
		r.want(t, call{second, []int{1}}, call{second, []int{2}}, call{2 * second, []int{3}})
		close(end)
		synctest.Wait()
	})
}

// Items that began at any time go together, from the second period on, if the slack is
// half of the period. Each of them is due at least once a period.
func TestItemsOfOnePeriodSoonGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const items, period = 500, 10 * time.Second
		type value struct {
			item heartbeat.Item[*value]
			last time.Time
		}
		var (
			mu    sync.Mutex
			calls []time.Duration
			h     *heartbeat.Heartbeat[*value]
			began = time.Now()
		)
		h = heartbeat.New(period/2, 1000, func(batch []*value) {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, time.Since(began))
			for _, v := range batch {
				if d := time.Since(v.last); d > period {
					t.Errorf("an item was due after %v", d)
				}
				v.last = time.Now()
				h.Schedule(&v.item, v.last.Add(period))
			}
		})
		random := rand.New(rand.NewPCG(1, 2))
		all := make([]*value, items)
		for i := range all {
			time.Sleep(time.Duration(random.Int64N(int64(2 * period / items))))
			all[i] = &value{last: time.Now()}
			all[i].item.Value = all[i]
			h.Schedule(&all[i].item, time.Now().Add(period))
		}
		time.Sleep(2 * period)
		mu.Lock()
		calls = nil
		mu.Unlock()
		time.Sleep(10 * period)
		mu.Lock()
		if n := len(calls); n != 10 {
			t.Errorf("%d calls in 10 periods: %v", n, calls)
		}
		mu.Unlock()
		for _, v := range all {
			h.Remove(&v.item)
		}
	})
}

func TestSchedulingAllocatesNothing(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations are not exact under the race detector")
	}
	h := heartbeat.New(second, 10, func([]int) {})
	var a item
	at := time.Now().Add(time.Hour)
	h.Schedule(&a, at)
	h.Remove(&a)
	if n := testing.AllocsPerRun(100, func() { h.Schedule(&a, at); h.Remove(&a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

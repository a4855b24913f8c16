package queue_test

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/usher-go/usher/internal/queue"
)

type item struct{ due, index int }

func (i *item) Before(other *item) bool { return i.due < other.due }
func (i *item) Moved(index int)         { i.index = index }

func TestItemsComeInOrderAndHaveTheirIndex(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var q queue.Queue[*item]
	var all []*item
	for range 500 {
		switch n := random.IntN(4); {
		case n == 0 && len(all) > 0:
			i := random.IntN(len(all))
			heap.Remove(&q, all[i].index)
			all = slices.Delete(all, i, i+1)
		case n == 1 && len(all) > 0:
			i := all[random.IntN(len(all))]
			i.due = random.IntN(100)
			heap.Fix(&q, i.index)
		default:
			i := &item{due: random.IntN(100)}
			heap.Push(&q, i)
			all = append(all, i)
		}
		for _, i := range all {
			if q[i.index] != i {
				t.Fatalf("an item thinks that it is at %d", i.index)
			}
		}
	}
	slices.SortFunc(all, func(a, b *item) int { return a.due - b.due })
	for _, want := range all {
		if got := heap.Pop(&q).(*item); got.due != want.due {
			t.Fatalf("the first item is due at %d, want %d", got.due, want.due)
		}
	}
	if q.Len() != 0 {
		t.Errorf("%d are left", q.Len())
	}
}

// Package queue provides a priority queue of items that expire, for stores that drop
// expired items without a sweep.
package queue

// An Item is ordered, and keeps its index in a [Queue].
type Item[T any] interface {
	// Before reports whether the item comes before other.
	Before(other T) bool
	// Moved is called with the new index of the item, for heap.Fix and heap.Remove.
	Moved(index int)
}

// A Queue is a heap.Interface: with the functions of container/heap, the item
// that comes first is at index 0. Its zero value is empty.
type Queue[T Item[T]] []T

// Len returns the number of items.
func (q Queue[T]) Len() int { return len(q) }

// Less reports whether item i comes before item j.
func (q Queue[T]) Less(i, j int) bool { return q[i].Before(q[j]) }

// Swap exchanges two items.
func (q Queue[T]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].Moved(i)
	q[j].Moved(j)
}

// Push is for heap.Push.
func (q *Queue[T]) Push(x any) {
	item := x.(T)
	item.Moved(len(*q))
	*q = append(*q, item)
}

// Pop is for heap.Pop.
func (q *Queue[T]) Pop() any {
	last := len(*q) - 1
	item := (*q)[last]
	var none T
	(*q)[last] = none // for the garbage collector
	*q = (*q)[:last]
	return item
}

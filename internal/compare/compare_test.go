package compare_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/compare"
)

type pair struct {
	A any
	b *int
}

func TestDiff(t *testing.T) {
	one, other := 1, 1
	two := 2
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	failed := errors.New("failed")
	var a, b pair
	a.A, b.A = &a, &b
	tests := map[string]struct {
		want, got any
		contains  string // of the difference; empty means equal
	}{
		"nothing":                        {nil, nil, ""},
		"nothing and something":          {nil, 1, "value:\n  -nothing\n  +1"},
		"numbers":                        {1, 2, "value:\n  -1\n  +2"},
		"numbers of two types":           {1, int64(1), "-int 1\n  +int64 1"},
		"equal text":                     {"a", "a", ""},
		"text":                           {"a", "b", "-\"a\"\n  +\"b\""},
		"equal slices":                   {[]string{"a"}, []string{"a"}, ""},
		"an element of a slice":          {[]string{"a", "b"}, []string{"a", "c"}, "[1]:\n  -\"b\""},
		"slices of two lengths":          {[]string{"a"}, []string{"a", "b"}, "value:"},
		"a nil slice and an empty":       {[]string(nil), []string{}, "value:"},
		"equal maps":                     {map[string]int{"a": 1}, map[string]int{"a": 1}, ""},
		"a value of a map":               {map[string]int{"a": 1}, map[string]int{"a": 2}, `["a"]:` + "\n  -1\n  +2"},
		"a missing key":                  {map[string]int{"a": 1}, map[string]int{}, `["a"]:` + "\n  -1\n  +nothing"},
		"a further key":                  {map[string]int{}, map[string]int{"a": 0}, `["a"]:` + "\n  -nothing\n  +0"},
		"a nil map and an empty":         {map[string]int(nil), map[string]int{}, "value:"},
		"equal pointers":                 {pair{1, &one}, pair{1, &other}, ""},
		"an unexported field":            {pair{1, &one}, pair{1, &two}, ".b:\n  -1\n  +2"},
		"a nil pointer":                  {pair{1, &one}, pair{1, nil}, ".b:"},
		"a field of any type":            {pair{1, nil}, pair{"1", nil}, ".A:\n  -int 1"},
		"equal times in two places":      {noon, noon.In(time.FixedZone("", 3600)), ""},
		"two times":                      {noon, noon.Add(1), "value:"},
		"one error":                      {failed, failed, ""},
		"arrays":                         {[2]int{1, 2}, [2]int{1, 3}, "[1]:"},
		"functions":                      {func() {}, func() {}, "value:"},
		"nil functions":                  {(func())(nil), (func())(nil), ""},
		"values that contain themselves": {a, b, "too deep"},
		"each difference on its line":    {[]int{1, 2}, []int{3, 4}, "[0]:\n  -1\n  +3\n[1]:\n  -2\n  +4"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			diff := compare.Diff(tt.want, tt.got)
			if (diff == "") != (tt.contains == "") || !strings.Contains(diff, tt.contains) {
				t.Errorf("the difference is %q, want %q in it", diff, tt.contains)
			}
			if compare.Equal(tt.want, tt.got) != (tt.contains == "") {
				t.Error("Equal contradicts Diff")
			}
		})
	}
}

package problem_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/usher-go/usher/internal/problem"
)

func TestDetails(t *testing.T) {
	many := map[string]any{}
	for i := range 12 {
		many[fmt.Sprintf("m%02d", i)] = i
	}
	for name, tt := range map[string]struct {
		details any
		want    string
	}{
		"none":                             {nil, `{"a":1}`},
		"extension members, by their name": {map[string]any{"c": 3, "b": "<"}, `{"a":1,"b":"\u003c","c":3}`},
		"members of the format stay": {
			map[string]any{"type": 0, "title": 0, "status": 0, "detail": 0, "instance": 0, "code": 0, "param": 0, "errors": 0, "b": 2},
			`{"a":1,"b":2}`,
		},
		"an empty map":  {map[string]any{}, `{"a":1}`},
		"more than fit": {many, `{"a":1,"m00":0,"m01":1,"m02":2,"m03":3,"m04":4,"m05":5,"m06":6,"m07":7,"m08":8,"m09":9,"m10":10,"m11":11}`},
		"anything else": {map[string]int{"b": 2}, `{"a":1,"details":{"b":2}}`},
	} {
		t.Run(name, func(t *testing.T) {
			got := string(problem.AppendDetails([]byte(`{"a":1`), tt.details, func(b []byte, v any) []byte {
				text, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				return append(b, text...)
			})) + "}"
			if got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

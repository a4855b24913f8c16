package refusal_test

import (
	"errors"
	"testing"

	"github.com/usher-go/usher/internal/refusal"
)

type verdict uint8

const (
	missing verdict = iota
	wrong
	stale
	unavailable
)

func (v verdict) Error() string { return [...]string{"missing", "wrong", "stale", "unavailable"}[v] }

type (
	field    struct{}
	response = refusal.Error[field]
)

func newTable() *refusal.Table[verdict, field] {
	return refusal.New([]string{"Bearer"}, map[verdict]response{
		wrong:       {Status: 401, Code: "invalid"},
		stale:       {Status: 401, Code: "invalid", Challenges: []string{"Own"}},
		unavailable: {Status: 503, Code: "unavailable"},
	})
}

func TestAnErrorHasItsVerdictAsCause(t *testing.T) {
	table := newTable()
	for _, v := range []verdict{wrong, stale, unavailable} {
		if e := table.Error(v, nil); !errors.Is(e.Cause, v) || e != table.Error(v, nil) {
			t.Errorf("%v: %+v, want one shared error with the verdict as cause", v, e)
		}
	}
}

func TestACauseIsAddedToACopy(t *testing.T) {
	table, down := newTable(), errors.New("down")
	e := table.Error(unavailable, down)
	if !errors.Is(e.Cause, unavailable) || !errors.Is(e.Cause, down) || e.Status != 503 || e.Cause.Error() != "unavailable: down" {
		t.Errorf("%+v", e)
	}
	if shared := table.Error(unavailable, nil); errors.Is(shared.Cause, down) {
		t.Error("the cause of one request became the cause of all")
	}
}

func TestA401HasAChallenge(t *testing.T) {
	table, own := newTable(), &response{Status: 401}
	if reason := table.Replace(wrong, own); reason != "" {
		t.Fatal(reason)
	}
	for v, want := range map[verdict]string{wrong: "Bearer", stale: "Own"} {
		if got := table.Error(v, nil).Challenges; len(got) != 1 || got[0] != want {
			t.Errorf("%v: challenges %q, want %q", v, got, want)
		}
	}
	if len(table.Error(unavailable, nil).Challenges) != 0 {
		t.Error("a 503 has a challenge")
	}
	if len(own.Challenges) != 0 || own.Cause != nil {
		t.Error("the error of the configuration was changed")
	}
}

func TestReplaceKeepsTheClassOfTheStatus(t *testing.T) {
	why := errors.New("why")
	for _, test := range []struct {
		name    string
		verdict verdict
		own     *response
		reason  string
	}{
		{"another refusal", wrong, &response{Status: 403, Cause: why}, ""},
		{"another failure", unavailable, &response{Status: 500, Cause: why}, ""},
		{"nil", wrong, nil, "must not be nil"},
		{"a verdict without an error", missing, &response{Status: 401}, "cannot be replaced"},
		{"a verdict that does not exist", 99, &response{Status: 401}, "cannot be replaced"},
		{"a refusal as a success", wrong, &response{Status: 200}, "must have a status from 400 to 499"},
		{"a refusal as a failure", wrong, &response{Status: 500}, "must have a status from 400 to 499"},
		{"a failure as a refusal", unavailable, &response{Status: 499}, "must have a status of 500 or above"},
		{"no status", wrong, &response{}, "must have a status from 400 to 499"},
	} {
		t.Run(test.name, func(t *testing.T) {
			table := newTable()
			if reason := table.Replace(test.verdict, test.own); reason != test.reason {
				t.Fatalf("%q, want %q", reason, test.reason)
			}
			if test.reason != "" {
				return
			}
			e := table.Error(test.verdict, nil)
			if e.Status != test.own.Status || !errors.Is(e.Cause, test.verdict) || !errors.Is(e.Cause, why) {
				t.Errorf("%+v", e)
			}
		})
	}
}

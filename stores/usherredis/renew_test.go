package usherredis_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/ratelimit"
)

// A process renews all of its places in one call, and the server serves nobody meanwhile.
func TestManyPlacesOfOneKeyAreRenewedInOnePass(t *testing.T) {
	s := servers.Redis(t)
	l := open(t, s.Addr, newPrefix()).Limits()
	limit := ratelimit.Concurrency(10000)
	hold := func(key string) ratelimit.Place {
		c := charge("p", limit, 1)
		c.Key, c.Lease = ratelimit.TextKey(key), time.Minute
		d := decision(c)
		if err := l.Take(t.Context(), d); err != nil || !d.Admitted {
			t.Fatalf("Take: %v, %v", d.Admitted, err)
		}
		return ratelimit.Place{Policy: "p", Key: c.Key, TakenBy: d.ID}
	}
	var places, want []ratelimit.Place
	for i := range 3000 {
		p := hold("many")
		switch {
		case i%100 == 0: // taken for another key, so unknown for this one
			p = hold(fmt.Sprint("other", i))
			p.Key = ratelimit.TextKey("many")
			places, want = append(places, p), append(want, p)
		case i%100 == 1: // of another key
			places = append(places, hold(fmt.Sprint("other", i)))
		case i%4 == 2: // the others belong to other processes
			places = append(places, p)
		}
	}
	places = append(places, places[2]) // the same one again
	keys := make(map[ratelimit.Key]bool)
	for _, p := range places {
		keys[p.Key] = true
	}
	if _, err := l.Renew(t.Context(), places[:1], time.Hour); err != nil { // the server gets the script
		t.Fatal(err)
	}
	must(t, s.Addr, "CONFIG", "RESETSTAT")
	lost, err := l.Renew(t.Context(), places, time.Hour)
	if err != nil || !slices.Equal(lost, want) {
		t.Errorf("Renew of %d places: %d lost, %v, want %d", len(places), len(lost), err, len(want))
	}
	m := must(t, s.Addr, "INFO", "commandstats")
	text, _ := m.ToString()
	// Places that are not found may be units that a decision holds, which are stored at another key.
	if n, want := stat(text, "get", "calls"), float64(len(keys)+1); n != want {
		t.Errorf("the server has read %v values for %d keys, want %v", n, len(keys), want)
	}
}

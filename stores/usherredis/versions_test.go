package usherredis_test

import (
	"testing"
	"time"

	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/stores/usherredis"
)

// What earlier versions have stored is still read. Each value has three of five units in
// use, at the first instant of 1,800,000,000 s.
func TestDataOfEarlierVersions(t *testing.T) {
	const (
		bucket  = "\x94\xb0b 5 3600000000 5\x00\xcf\x00\x06e\x17\xa9W|\x00\x00"
		rolling = "\x94\xaer 5 3600000000\x00\x03\xac\x00\x06e\x17(\x98\x80\x00\x00\x00\x00\x03"
		window  = "\x00\x03\xcf\x00\x06e\x17(\x98\x80\x00\xcf\x00\x06e\x17\xff,$\x00\xcf\x00\x06e\x18\xd5\xbf\xc8\x00"
		places  = "\x95\x01\x03\xcf\x00\x06e\x17,,\a\x00\xcf\x00\x06e\x17,,\a\x00" +
			"\xbc\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x03\x00\x06e\x17,,\a\x00"
	)
	s := servers.Redis(t)
	client := connect(t, s.Addr)
	l := open(t, s.Addr, "orders").Limits()
	now := time.Unix(1_800_000_000, 0)
	usherredis.SetClock(l, func() time.Time { return now })
	year := ratelimit.CalendarWindow(5, ratelimit.Year)
	for name, c := range map[string]struct {
		limit       ratelimit.Limit
		part, value string
	}{
		"token bucket":             {limits["token bucket"], "limit", "\x92\x01" + bucket},
		"rolling window":           {limits["rolling window"], "limit", "\x92\x01" + rolling},
		"calendar window":          {year, "limit", "\x92\x01\x96\xa9c 5 6 UTC" + window},
		"a time zone with a space": {year.In(time.FixedZone("Mars/Olympus Mons", 0)), "limit", "\x92\x01\x96\xb7c 5 6 Mars/Olympus Mons" + window},
		"two limits":               {limits["token bucket"], "limit", "\x93\x01" + rolling + bucket},
		"places":                   {limits["concurrency"], "places", places},
	} {
		t.Run(name, func(t *testing.T) {
			one := charge("p", c.limit, 1)
			one.Windows = [2]ratelimit.Window{{End: now.Add(time.Hour)}, {End: now.Add(2 * time.Hour)}}
			one.Key = ratelimit.TextKey(name)
			digest := one.Key.Digest()
			do(t, client, "SET", "{orders}:"+c.part+":p:"+string(digest[:]), c.value)
			wantLeft(t, l, one, 2)
			one.TakenBy, one.TakenAt, one.Cost = ratelimit.ID{Node: 1, Seq: 2}, now.UnixMicro(), -1
			if moved := adjust(t, l, one); moved != -1 {
				t.Errorf("a refund of 1 moves %d units", moved)
			}
			one.Cost, one.Hold = 1, true
			take(t, l, one)
			wantLeft(t, l, one, 2)
		})
	}
}

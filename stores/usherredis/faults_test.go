package usherredis_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/ratelimit"
)

func TestAServerThatCrashesAndStartsAgain(t *testing.T) {
	s := servers.Redis(t)
	r := open(t, s.Addr, newPrefix())
	wantAll(t, calls(t.Context(), r), nil)
	s.Kill()
	wantAll(t, calls(t.Context(), r), usher.ErrUnavailable)
	s.Start()
	eventually(t, r)
}

func TestAServerThatIsAbsentAtOpenAndAppearsLater(t *testing.T) {
	s := servers.Redis(t)
	s.Kill()
	r := open(t, s.Addr, newPrefix())
	wantAll(t, calls(t.Context(), r), usher.ErrUnavailable)
	s.Start()
	eventually(t, r)
}

// slack is how much longer than its context a call may take on a loaded machine.
const slack = 2 * time.Second

func TestNoCallOutlastsItsContextWhileTheServerIsSilent(t *testing.T) {
	for name, fresh := range map[string]bool{"connected": false, "not yet connected": true} {
		t.Run(name, func(t *testing.T) {
			s := servers.Redis(t)
			r := openURL(t, "redis://"+s.Addr, newPrefix())
			if !fresh {
				eventually(t, r)
			}
			resume := s.Pause()
			var all sync.WaitGroup
			for range 16 {
				all.Go(func() {
					for end := time.Now().Add(time.Second); time.Now().Before(end); {
						ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
						began := time.Now()
						err := r.Limits().Take(ctx, decision(charge("p", limits["token bucket"], 1)))
						if took := time.Since(began); took > 100*time.Millisecond+slack {
							t.Errorf("a call took %v", took)
						}
						cancel()
						if !errors.Is(err, usher.ErrUnavailable) {
							t.Errorf("Take: %v, want ErrUnavailable", err)
						}
					}
				})
			}
			all.Wait()
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(50*time.Millisecond, cancel)
			if err := r.Limits().Take(ctx, decision(charge("p", limits["token bucket"], 1))); !errors.Is(err, context.Canceled) && !errors.Is(err, usher.ErrUnavailable) {
				t.Errorf("Take that is canceled: %v", err)
			}
			resume()
			eventually(t, r)
		})
	}
}

// A caller that gives up costs no connection: the next one need not wait for another.
func TestALateReplyCostsNoConnection(t *testing.T) {
	s := servers.Redis(t)
	r := openURL(t, "redis://"+s.Addr+"?dial_timeout=5s", newPrefix())
	client := connect(t, s.Addr)
	connections := func() string {
		m := do(t, client, "INFO", "stats")
		text, _ := m.ToString()
		_, text, _ = strings.Cut(text, "total_connections_received:")
		text, _, _ = strings.Cut(text, "\r\n")
		return text
	}
	call := func(timeout time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		return r.Limits().Take(ctx, decision(charge("p", limits["token bucket"], 0)))
	}
	succeed := func() {
		for range 200 { // over all connections that a client has
			if err := call(10 * time.Second); err != nil {
				t.Fatal(err)
			}
		}
	}
	succeed()
	before := connections()
	resume := s.Pause()
	for range 5 {
		if err := call(20 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Take: %v, want the error of the context", err)
		}
	}
	resume()
	succeed()
	if after := connections(); after != before {
		t.Errorf("the server has accepted %s connections, want %s", after, before)
	}
}

func TestTheErrorOfAContextIsWrapped(t *testing.T) {
	r := open(t, servers.Redis(t).Addr, newPrefix())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantAll(t, calls(ctx, r), context.Canceled)
	wantAll(t, calls(ctx, r), usher.ErrUnavailable)
}

func TestCloseEndsCallsThatAreRunning(t *testing.T) {
	s := servers.Redis(t)
	r := open(t, s.Addr, newPrefix())
	eventually(t, r)
	resume := s.Pause()
	var running sync.WaitGroup
	for range 64 {
		running.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := r.Limits().Take(ctx, decision(charge("p", limits["token bucket"], 1))); !errors.Is(err, usher.ErrClosed) {
				t.Errorf("Take: %v, want ErrClosed", err)
			}
			if _, err := r.Idempotency().Claim(ctx, newClaim()); !errors.Is(err, usher.ErrClosed) {
				t.Errorf("Claim: %v, want ErrClosed", err)
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	running.Wait()
	resume()
	wantAll(t, calls(t.Context(), r), usher.ErrClosed)
	if err := r.Check(t.Context()); !errors.Is(err, usher.ErrClosed) {
		t.Errorf("Check: %v, want ErrClosed", err)
	}
	if err := r.Limits().Take(t.Context(), decision(charge("p", ratelimit.Unlimited(), 1))); !errors.Is(err, usher.ErrClosed) {
		t.Errorf("Take without a charge that is stored: %v, want ErrClosed", err)
	}
}

func TestClosingAStoreLeavesTheOtherOpen(t *testing.T) {
	r := open(t, servers.Redis(t).Addr, newPrefix())
	if err := r.Limits().Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Limits().Take(t.Context(), decision()); !errors.Is(err, usher.ErrClosed) {
		t.Errorf("Take: %v, want ErrClosed", err)
	}
	win(t, r.Idempotency(), newClaim())
}

func TestAScriptThatTheServerHasForgottenIsSentAgain(t *testing.T) {
	s := servers.Redis(t)
	r := open(t, s.Addr, newPrefix())
	c := charge("p", limits["rolling window"], 1)
	for n := range int64(4) {
		must(t, s.Addr, "SCRIPT", "FLUSH")
		if left := take(t, r.Limits(), c).Charges[0].Remaining; left != 4-n {
			t.Errorf("%d left after %d decisions", left, n+1)
		}
	}
	must(t, s.Addr, "SCRIPT", "FLUSH")
	must(t, s.Addr, "CONFIG", "RESETSTAT")
	take(t, r.Limits(), c)
	wantLeft(t, r.Limits(), c, 0)
	stats := must(t, s.Addr, "INFO", "commandstats")
	text, err := stats.ToString()
	if err != nil || !strings.Contains(text, "cmdstat_evalsha:calls=2,") || !strings.Contains(text, "cmdstat_eval:calls=1,") {
		t.Errorf("two decisions, the first with an unknown script, want 2 EVALSHA and 1 EVAL: %v\n%s", err, text)
	}
}

func TestNothingIsChargedOnceTheMemoryIsFull(t *testing.T) {
	s := servers.Redis(t, "maxmemory-policy", "noeviction")
	r := open(t, s.Addr, newPrefix())
	l, i := r.Limits(), r.Idempotency()
	places := charge("places", limits["concurrency"], 2)
	kept := take(t, l, places).Charges[0]
	reserved := holding("reserved", limits["token bucket"], 2)
	keptUnits := take(t, l, reserved).Charges[0]
	forgotten := take(t, l, charge("forgotten", limits["rolling window"], 2)).Charges[0]
	partly := holding("partly", limits["rolling window"], 2)
	take(t, l, charge(partly.Policy, partly.Limit, 2))
	take(t, l, partly)
	charges := []ratelimit.Charge{
		charge("bucket", limits["token bucket"], 1), charge("rolling", limits["rolling window"], 1),
		charge("calendar", limits["calendar window"], 1),
	}
	used := take(t, l, charges...).Charges
	large, small, renewed, removed := newClaim(), newClaim(), newClaim(), newClaim()
	for _, c := range []idempotency.Claim{large, small, renewed, removed} {
		win(t, i, c)
	}
	if _, err := i.Finish(t.Context(), done(removed, "a response")); err != nil {
		t.Fatal(err)
	}

	must(t, s.Addr, "CONFIG", "SET", "maxmemory", "1mb")
	if err := l.Take(t.Context(), decision(append(charges, places, reserved)...)); !errors.Is(err, usher.ErrFull) {
		t.Errorf("Take: %v, want ErrFull", err)
	}
	for j := range used {
		used[j].Cost = -1
	}
	if err := l.Adjust(t.Context(), decision(used...)); !errors.Is(err, usher.ErrFull) {
		t.Errorf("Adjust: %v, want ErrFull", err)
	}
	for _, c := range []ratelimit.Charge{kept, keptUnits} {
		place := ratelimit.Place{Policy: c.Policy, Key: c.Key, TakenBy: c.TakenBy}
		if lost, err := l.Renew(t.Context(), []ratelimit.Place{place}, time.Minute); err != nil || len(lost) > 0 {
			t.Errorf("Renew of places: %v, %v", lost, err)
		}
	}
	peek := decision(append(charges, places, reserved)...)
	peek.Peek = true
	if err := l.Take(t.Context(), peek); err != nil || peek.Charges[0].Remaining != 4 || peek.Charges[4].Remaining != 3 {
		t.Errorf("Take to peek: %d and %d left, %v", peek.Charges[0].Remaining, peek.Charges[4].Remaining, err)
	}
	counters := []ratelimit.Counter{{Policy: forgotten.Policy, Key: forgotten.Key}, {Policy: partly.Policy, Key: partly.Key}}
	if err := l.Reset(t.Context(), counters); err != nil {
		t.Errorf("Reset: %v", err)
	}
	if _, err := i.Claim(t.Context(), newClaim()); !errors.Is(err, usher.ErrFull) {
		t.Errorf("Claim: %v, want ErrFull", err)
	}
	if lost, err := i.Renew(t.Context(), []idempotency.ClaimID{{Key: renewed.Key, Token: renewed.Token}}, time.Minute); err != nil || len(lost) > 0 {
		t.Errorf("Renew of claims: %v, %v", lost, err)
	}
	if state, err := i.Finish(t.Context(), done(large, "a response")); err != nil || state != idempotency.StateTombstone {
		t.Errorf("Finish keeps state %d, %v, want a tombstone", state, err)
	}
	release := done(small, "")
	release.Result.State = idempotency.StateReleased
	if state, err := i.Finish(t.Context(), release); err != nil || state != idempotency.StateReleased {
		t.Errorf("Finish keeps state %d, %v, want it released", state, err)
	}
	if r, err := i.Find(t.Context(), large.Key); err != nil || r.State != idempotency.StateTombstone {
		t.Errorf("Find: %+v, %v, want a tombstone", r, err)
	}
	if r, err := i.Find(t.Context(), removed.Key); err != nil {
		t.Errorf("Find: %v", err)
	} else if err := i.Delete(t.Context(), removed.Key, r.Generation); err != nil {
		t.Errorf("Delete: %v", err)
	}

	must(t, s.Addr, "CONFIG", "SET", "maxmemory", "0")
	for _, c := range charges {
		wantLeft(t, l, c, 4)
	}
	wantLeft(t, l, places, 3)
	wantLeft(t, l, reserved, 3)
	wantLeft(t, l, forgotten, 5)
	wantLeft(t, l, partly, 3)
	other := large
	other.Token[0]++
	if got, err := i.Claim(t.Context(), other); err != nil || got.State != idempotency.StateTombstone || got.Status != 200 {
		t.Errorf("the record is %+v, %v, want a tombstone", got, err)
	}
}

func TestAReplicaAcceptsNothing(t *testing.T) {
	primary, replica := servers.Redis(t), servers.Redis(t)
	r := open(t, replica.Addr, newPrefix())
	eventually(t, r)
	host, port, _ := strings.Cut(primary.Addr, ":")
	must(t, replica.Addr, "REPLICAOF", host, port)
	if err := r.Limits().Take(t.Context(), decision(charge("p", limits["token bucket"], 1))); !errors.Is(err, usher.ErrUnavailable) {
		t.Errorf("Take: %v, want ErrUnavailable", err)
	}
	if _, err := r.Idempotency().Claim(t.Context(), newClaim()); !errors.Is(err, usher.ErrUnavailable) {
		t.Errorf("Claim: %v, want ErrUnavailable", err)
	}
	// A replica may be behind, so nothing is found there either.
	if _, err := r.Idempotency().Find(t.Context(), newClaim().Key); !errors.Is(err, usher.ErrUnavailable) {
		t.Errorf("Find: %v, want ErrUnavailable", err)
	}
	if err := r.Idempotency().Delete(t.Context(), newClaim().Key, 1); !errors.Is(err, usher.ErrUnavailable) {
		t.Errorf("Delete: %v, want ErrUnavailable", err)
	}
	if err := r.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "primary") {
		t.Errorf("Check: %v, want it to name the primary", err)
	}
}

func TestAServerWithAsManyClientsAsItAccepts(t *testing.T) {
	s := servers.Redis(t)
	must(t, s.Addr, "CONFIG", "SET", "maxclients", "3")
	var d net.Dialer
	for range 3 {
		c, err := d.DialContext(t.Context(), "tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	r := open(t, s.Addr, newPrefix())
	wantAll(t, calls(t.Context(), r), usher.ErrUnavailable)
}

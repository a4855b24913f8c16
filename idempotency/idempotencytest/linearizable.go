package idempotencytest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/usher-go/usher/idempotency"
)

const (
	clients = 8
	keys    = 4
	// callsPerClient times clients is the number of calls in a history.
	callsPerClient = 24
	// checkTimeout limits the search for an order of one history.
	checkTimeout = 20 * time.Second
)

// CheckLinearizable records histories of random calls that 8 clients make concurrently on
// 4 keys. It returns an error if no sequential order of the calls in a history, each of
// them one step of the contract, explains their results. The calls claim keys, renew
// leases, several in one call, finish claims in every way, and are repeated. Some leases
// end at once, so that claims are taken over. A call that returned an unknown error may
// have happened or not.
func CheckLinearizable(ctx context.Context, s idempotency.Store, histories int) error {
	for i := range histories {
		h := record(ctx, s, uint64(i))
		switch porcupine.CheckOperationsTimeout(model.ToModel(), h, checkTimeout) {
		case porcupine.Illegal:
			return fmt.Errorf("idempotencytest: history %d is not linearizable:\n%s", i, describe(h))
		case porcupine.Unknown:
			return fmt.Errorf("idempotencytest: no order of history %d was found within %v", i, checkTimeout)
		}
	}
	return ctx.Err()
}

type operation uint8

const (
	claim operation = iota
	renew
	finish
)

// An input is a call.
type input struct {
	op    operation
	key   int
	token int
	brief bool              // the lease ends at once
	state idempotency.State // of a finish
	text  string            // its payload
}

// An output is what a call returned.
type output struct {
	failed     bool // with an unknown error
	unseen     bool // the call took effect, and its result was lost
	lost       bool
	won        bool
	state      idempotency.State
	generation uint64
	text       string
}

// A state is a record in the model.
type state struct {
	state      idempotency.State // 0 for none
	token      int
	generation uint64
	vague      bool // the generation is greater than this; no call has returned it yet
	brief      bool // the lease may have ended
	text       string
}

// record makes one history.
func record(ctx context.Context, s idempotency.Store, seed uint64) []porcupine.Operation {
	var names [keys]idempotency.Key
	for i := range names {
		names[i] = newKey()
	}
	tokens := make([]idempotency.Token, 1+clients*callsPerClient)
	for i := range tokens {
		tokens[i] = newToken()
	}
	start := time.Now()
	var mu sync.Mutex
	var history []porcupine.Operation
	together(clients, func(client int) {
		random := rand.New(rand.NewPCG(seed, uint64(client)))
		var mine [keys]int // the token of the last claim of each key
		for n := range callsPerClient {
			in := choose(random, &mine, client, n)
			steps := []input{in}
			if in.op == renew {
				steps = renewals(in, &mine)
			}
			ids := make([]idempotency.ClaimID, len(steps))
			for i, step := range steps {
				ids[i] = idempotency.ClaimID{Key: names[step.key], Token: tokens[step.token]}
			}
			called := time.Since(start)
			outs := perform(ctx, s, in, ids)
			returned := time.Since(start)
			mu.Lock()
			for i, out := range outs {
				o := porcupine.Operation{ClientId: client, Input: steps[i], Output: out, Call: int64(called), Return: int64(returned)}
				if out.failed {
					o.Return = math.MaxInt64
				}
				history = append(history, o)
			}
			mu.Unlock()
		}
	})
	return history
}

// renewals returns the steps of a call that renews all claims of a client.
func renewals(in input, mine *[keys]int) (steps []input) {
	for key, token := range mine {
		if token != 0 {
			in.key, in.token = key, token
			steps = append(steps, in)
		}
	}
	return steps
}

// choose returns the next call of a client.
func choose(random *rand.Rand, mine *[keys]int, client, n int) input {
	in := input{key: random.IntN(keys), text: fmt.Sprintf("%d-%d", client, n)}
	in.token = mine[in.key]
	switch p := random.IntN(10); {
	case in.token == 0 || p < 4:
		in.op, in.brief = claim, random.IntN(2) == 0
		if in.token == 0 || p < 3 { // else the claim is repeated
			in.token = 1 + client*callsPerClient + n
			mine[in.key] = in.token
		}
	case p < 6:
		in.op, in.brief = renew, random.IntN(2) == 0
	default:
		in.op = finish
		// Most claims are released. Otherwise all keys would soon be done.
		switch random.IntN(9) {
		case 0:
			in.state = idempotency.StateDone
		case 1:
			in.state = idempotency.StateTombstone
		case 2:
			in.state = idempotency.StateUnknown
		default:
			in.state = idempotency.StateReleased
		}
	}
	return in
}

// perform makes a call for claims: for one claim, unless the call is Renew. It returns the
// output for each claim.
func perform(ctx context.Context, s idempotency.Store, in input, claims []idempotency.ClaimID) []output {
	lease := time.Hour
	if in.brief {
		lease = time.Nanosecond
	}
	outs := make([]output, len(claims))
	key, token := claims[0].Key, claims[0].Token
	var err error
	switch in.op {
	case claim:
		var r idempotency.Record
		r, err = s.Claim(ctx, idempotency.Claim{Key: key, Token: token, Lease: lease, TTL: 2 * time.Hour})
		outs[0] = output{won: r.Won, state: r.State, generation: r.Generation, text: string(r.Payload)}
	case renew:
		var lost []idempotency.ClaimID
		lost, err = s.Renew(ctx, slices.Clone(claims), lease)
		for i, c := range claims {
			outs[i].lost = slices.Contains(lost, c)
		}
	case finish:
		outs[0].state, err = s.Finish(ctx, idempotency.Completion{Key: key, Token: token, Result: idempotency.Result{
			State: in.state, Payload: []byte(in.text), TTL: 2 * time.Hour,
		}})
	}
	for i := range outs {
		switch {
		case errors.Is(err, idempotency.ErrLost):
			outs[i] = output{lost: true}
		case err != nil:
			outs[i] = output{failed: true}
		}
	}
	return outs
}

// model is the contract for one key.
var model = porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := make([][]porcupine.Operation, keys)
		for _, o := range history {
			k := o.Input.(input).key
			parts[k] = append(parts[k], o)
		}
		return parts
	},
	Init: func() []any { return []any{state{}} },
	Step: func(before, in, out any) []any {
		return step(before.(state), in.(input), out.(output))
	},
	Equal: func(a, b any) bool { return a == b },
}

// step returns the possible states of the record after a call that returned out. There
// are none if the contract does not allow out.
func step(s state, in input, out output) []any {
	if out.failed {
		return append([]any{s}, stepUnseen(s, in)...) // it may have happened or not
	}
	switch in.op {
	case claim:
		return stepClaim(s, in, out)
	case renew:
		return stepRenew(s, in, out)
	default:
		return stepFinish(s, in, out)
	}
}

// stepUnseen returns the possible states after a call that took effect, but whose result
// was lost.
func stepUnseen(s state, in input) []any {
	if in.op != claim {
		return step(s, in, output{unseen: true})
	}
	out := output{won: true, state: idempotency.StateClaimed, generation: s.generation}
	if s.state != idempotency.StateClaimed || s.token != in.token {
		out.generation++
	}
	after := stepClaim(s, in, out)
	for i := range after {
		taken := after[i].(state)
		taken.vague = taken.generation > s.generation || s.vague
		taken.generation = s.generation
		after[i] = taken
	}
	return after
}

func stepClaim(s state, in input, out output) []any {
	mine := s.state != 0 && s.token == in.token
	if out.lost {
		return keepIf(s, mine && s.state == idempotency.StateReleased)
	}
	same := out.generation == s.generation
	if s.vague {
		same = out.generation > s.generation
	}
	if !out.won {
		inFlight := s.state == idempotency.StateClaimed && !mine
		ended := s.state == idempotency.StateDone || s.state == idempotency.StateTombstone || s.state == idempotency.StateUnknown
		seen := s
		seen.generation, seen.vague = out.generation, false
		return keepIf(seen, same && out.state == s.state && out.text == s.text && (inFlight || ended))
	}
	taken := state{state: idempotency.StateClaimed, token: in.token, generation: out.generation, brief: in.brief}
	switch {
	case out.state != idempotency.StateClaimed || out.text != "":
		return nil
	case s.state == idempotency.StateClaimed && mine:
		return keepIf(taken, same)
	case s.state == 0, s.state == idempotency.StateReleased && !mine, s.state == idempotency.StateClaimed && s.brief:
		return keepIf(taken, out.generation > s.generation)
	}
	return nil
}

func stepRenew(s state, in input, out output) []any {
	if s.state != idempotency.StateClaimed || s.token != in.token {
		return keepIf(s, out.lost)
	}
	s.brief = in.brief
	return keepIf(s, !out.lost)
}

func stepFinish(s state, in input, out output) []any {
	switch {
	case s.state == 0 || s.token != in.token:
		return keepIf(s, out.lost)
	case s.state == idempotency.StateClaimed:
		s.state, s.text, s.brief = in.state, "", false
		if in.state == idempotency.StateDone {
			s.text = in.text
		}
	}
	return keepIf(s, !out.lost && (out.unseen || out.state == s.state))
}

func keepIf(s state, allowed bool) []any {
	if !allowed {
		return nil
	}
	return []any{s}
}

func describe(history []porcupine.Operation) string {
	var b strings.Builder
	for _, o := range history {
		fmt.Fprintf(&b, "client %d, %d to %d ns: %+v returned %+v\n", o.ClientId, o.Call, o.Return, o.Input, o.Output)
	}
	return b.String()
}

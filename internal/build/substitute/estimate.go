package substitute

import "github.com/fluxcd/pkg/envsubst/parse"

// estimator bounds the length of a substituted text without making it, and
// finds the first variable that strict mode would refuse.
type estimator struct {
	lookup  func(string) (string, bool)
	strict  bool
	max     int
	missing string
	// slow is a variable that is too long for what is asked of it.
	slow string
}

// node is an upper bound for the length of a node's result, never more than
// max+1.
func (e *estimator) node(node parse.Node) int {
	switch n := node.(type) {
	case *parse.TextNode:
		return e.cap(len(n.Value))
	case *parse.ListNode:
		size := 0
		for _, child := range n.Nodes {
			size = e.cap(size + e.node(child))
		}
		return size
	case *parse.FuncNode:
		return e.function(n)
	}
	return 0
}

func (e *estimator) function(n *parse.FuncNode) int {
	arguments := 0
	for _, argument := range n.Args {
		arguments = e.cap(arguments + e.node(argument))
	}
	value, found := e.lookup(n.Param)
	if !found && e.strict && !givesDefault(n.Name) && e.missing == "" {
		e.missing = n.Param
	}
	switch n.Name {
	case "/", "//", "/#", "/%":
		// Every byte, and the places between them, may be replaced.
		if arguments > 0 && len(value)+1 > e.max/arguments {
			return e.max + 1
		}
		return e.cap(len(value) + (len(value)+1)*arguments)
	case "#", "##", "%", "%%":
		if len(n.Args) > 0 && len(value) > maxTrimBytes {
			e.slow = n.Param
		}
		return e.cap(max(len(value), 20))
	case "^", "^^", ",", ",,":
		// Changing the case can lengthen a letter's encoding.
		return e.cap(3 * len(value))
	default:
		// At least the digits of a length.
		return e.cap(max(len(value), arguments, 20))
	}
}

func (e *estimator) cap(size int) int { return min(size, e.max+1) }

// givesDefault tells whether an operator takes an unset variable.
func givesDefault(operator string) bool {
	switch operator {
	case "-", "+", "=", "?", ":-", ":+", ":=", ":?":
		return true
	}
	return false
}

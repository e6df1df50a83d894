//! Two tickets of one operation would be two outcomes.

use tokenwal::Ticket;

pub fn clone(ticket: &Ticket) -> Ticket {
    ticket.clone() //~ E0308
}

pub fn build() -> Ticket {
    Ticket {} //~ none
}

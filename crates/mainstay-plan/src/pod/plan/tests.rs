mod table;
mod world;
